// The drivers of Node: pg (with cursors) and postgres.js. Called with the server's addresses.json; the password is
// read from WEIR_PASSWORD. The packages are looked for where it is started.
const fs = require('fs');
const assert = require('assert');
const load = (name) => require(require.resolve(name, { paths: [process.cwd()] }));
const { Client, Pool } = load('pg');
const Cursor = load('pg-cursor');
const postgres = load('postgres');

const [host, port] = JSON.parse(fs.readFileSync(process.argv[2])).pg.split(':');
const login = { host, port: Number(port), user: 'weir', password: process.env.WEIR_PASSWORD, database: 'weir' };
let passed = 0;
let failed = 0;

async function check(name, run) {
  const begun = Date.now();
  try {
    const told = await run();
    passed += 1;
    console.log(`ok   ${name} (${Date.now() - begun} ms)${told === undefined ? '' : ': ' + JSON.stringify(told).slice(0, 100)}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}: ${error.code || ''} ${error.message}`);
  }
}

async function main() {
  const client = new Client(login);
  await client.connect();
  await check('pg: tables', async () => {
    await client.query('CREATE TABLE node_sales (id INT, region TEXT, amount NUMERIC(10,2), at TIMESTAMPTZ, tags TEXT[])');
    await client.query(
      "INSERT INTO node_sales SELECT i, 'r' || (i % 3), i * 1.5, timestamptz '2026-01-01' + i * interval '1 hour', " +
        "ARRAY['a', 'b'] FROM generate_series(1, 1000) AS g (i)");
  });
  await check('pg: types', async () => {
    const { rows: [row] } = await client.query(
      `SELECT 1::int AS a, 2::bigint AS b, 1.50::numeric(10,2) AS c, true AS d, '{"x":1}'::jsonb AS e, NULL AS f, ARRAY[1,2] AS g`);
    assert.deepStrictEqual({ ...row, g: row.g.map(Number) },
      { a: 1, b: '2', c: '1.50', d: true, e: { x: 1 }, f: null, g: [1, 2] });
  });
  await check('pg: a named prepared statement', async () => {
    for (let i = 0; i < 3; i += 1) {
      const { rows } = await client.query({ name: 'p', text: 'SELECT $1::int + 1 AS x, $2::text AS y', values: [i, 'é'] });
      assert.deepStrictEqual(rows, [{ x: i + 1, y: 'é' }]);
    }
  });
  await check('pg: a list as parameter', async () => {
    const { rows } = await client.query('SELECT count(*)::int AS n FROM node_sales WHERE id = ANY($1)', [[1, 2, 2000]]);
    assert.strictEqual(rows[0].n, 2);
  });
  await check('pg: a cursor', async () => {
    const cursor = client.query(new Cursor('SELECT id FROM node_sales'));
    let count = 0;
    for (let rows = await cursor.read(100); rows.length > 0; rows = await cursor.read(100)) count += rows.length;
    await cursor.close();
    assert.strictEqual(count, 1000);
  });
  await check('pg: an error keeps the connection', async () => {
    await assert.rejects(client.query('SELECT nothing FROM node_sales'), { code: '42703' });
    assert.strictEqual((await client.query('SELECT 1 AS x')).rows[0].x, 1);
  });
  await check('pg: a pool', async () => {
    const pool = new Pool({ ...login, max: 5 });
    const found = await Promise.all([...Array(20).keys()].map((i) => pool.query('SELECT $1::int AS x', [i])));
    await pool.end();
    assert.deepStrictEqual(found.map((f) => f.rows[0].x), [...Array(20).keys()]);
  });
  const sql = postgres({ ...login, username: login.user, max: 2 });
  await check('postgres.js: values and lists', async () => {
    const [row] = await sql`SELECT ${1}::int AS a, ${'x'}::text AS b, ${[1, 2]}::int[] AS c`;
    assert.deepStrictEqual({ a: row.a, b: row.b, c: [...row.c] }, { a: 1, b: 'x', c: [1, 2] });
    const some = await sql`SELECT id FROM node_sales WHERE id IN ${sql([3, 4])} ORDER BY id`;
    assert.deepStrictEqual(some.map((r) => r.id), [3, 4]);
  });
  await check('postgres.js: a transaction with a savepoint', async () => {
    const seen = await sql.begin(async (tx) => {
      await tx.savepoint((inner) => inner`SELECT nothing`).catch(() => {});
      return (await tx`SELECT count(*)::int AS n FROM node_sales`)[0].n;
    });
    assert.strictEqual(seen, 1000);
  });
  await check('postgres.js: a cursor', async () => {
    let count = 0;
    await sql`SELECT id FROM node_sales`.cursor(100, (rows) => { count += rows.length; });
    assert.strictEqual(count, 1000);
  });
  await sql.end();
  await check('clean up', async () => { await client.query('DROP TABLE node_sales'); });
  await client.end();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}

main();
