//! `CREATE EXTERNAL TABLE`: files that others own, read where they lie.

use std::io::Write;
use std::path::Path;

use tests::{PgSession, TestServer};

async fn text(pg: &PgSession, sql: &str) -> Vec<Vec<String>> {
    let rows = pg.rows(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let cell = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".to_owned());
    rows.into_iter()
        .map(|row| row.into_iter().map(cell).collect())
        .collect()
}

fn write(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = std::fs::File::create(&path).unwrap();
    match name.strip_suffix(".gz") {
        None => file.write_all(content.as_bytes()).unwrap(),
        Some(_) => {
            let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            packed.write_all(content.as_bytes()).unwrap();
            packed.finish().unwrap();
        }
    }
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_text_are_read_as_they_are() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    let dir = tempfile::tempdir().unwrap();
    let one = write(
        dir.path(),
        "prices.csv",
        "id,name,price,on_sale,day\n1,\"a, b\",1.5,true,2026-01-01\n2,,2.25,false,2026-01-02\n",
    );
    pg.run(&format!(
        "CREATE EXTERNAL TABLE prices STORED AS CSV LOCATION '{one}'"
    ))
    .await;
    assert_eq!(
        text(&pg, "SELECT * FROM prices ORDER BY id").await,
        [
            ["1", "a, b", "1.5", "t", "2026-01-01"],
            ["2", "NULL", "2.25", "f", "2026-01-02"],
        ]
    );
    let types = text(
        &pg,
        "SELECT data_type FROM information_schema.columns WHERE table_name = 'prices' \
         ORDER BY ordinal_position",
    )
    .await;
    assert_eq!(
        types.concat(),
        ["bigint", "text", "double precision", "boolean", "date"]
    );
    // rewritten by their owner: the next statement reads what is there
    write(
        dir.path(),
        "prices.csv",
        "id,name,price,on_sale,day\n7,c,1,true,2026-01-03\n",
    );
    assert_eq!(text(&pg, "SELECT id, name FROM prices").await, [["7", "c"]]);

    // a directory, its columns given, the delimiter another, no header
    write(dir.path(), "parts/a.csv", "1;x\n2;y\n");
    write(dir.path(), "parts/b.csv", "3;z\n");
    write(dir.path(), "parts/readme.txt", "no data\n");
    let parts = dir.path().join("parts");
    pg.run(&format!(
        "CREATE EXTERNAL TABLE parts (id INT, code VARCHAR(5)) STORED AS CSV \
         LOCATION 'file://{}/' WITH (header = false, delimiter = ';')",
        parts.display()
    ))
    .await;
    assert_eq!(
        text(&pg, "SELECT * FROM parts ORDER BY id").await,
        [["1", "x"], ["2", "y"], ["3", "z"]]
    );

    // packed lines of JSON; what a line lacks is NULL
    write(
        dir.path(),
        "log/1.json.gz",
        "{\"id\":1,\"tags\":[\"a\",\"b\"],\"at\":{\"x\":1}}\n{\"id\":2,\"more\":1.5}\n",
    );
    let log = dir.path().join("log");
    pg.run(&format!(
        "CREATE EXTERNAL TABLE log STORED AS JSON LOCATION '{}'",
        log.display()
    ))
    .await;
    assert_eq!(
        text(
            &pg,
            "SELECT id, tags[1], at['x'], more FROM log ORDER BY id"
        )
        .await,
        [["1", "a", "1", "NULL"], ["2", "NULL", "NULL", "1.5"]]
    );

    // joined with a table of ours, and copied into one
    pg.run("CREATE TABLE own AS SELECT p.id, p.code, l.more FROM parts p LEFT JOIN log l ON l.id = p.id")
        .await;
    assert_eq!(
        text(&pg, "SELECT * FROM own WHERE more IS NOT NULL").await,
        [["2", "y", "1.5"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_and_parquet_are_read_and_left_alone() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    pg.run("CREATE TABLE source (id INT, v TEXT, day DATE, p NUMERIC(10,2)) PARTITIONED BY (day)")
        .await;
    pg.run("INSERT INTO source VALUES (1, 'a', '2026-01-01', 1.25), (2, 'b', '2026-01-02', 2.5)")
        .await;
    let location = server.delta_location("public", "source");
    pg.run(&format!(
        "CREATE EXTERNAL TABLE far STORED AS DELTA LOCATION '{location}'"
    ))
    .await;
    assert_eq!(
        text(&pg, "SELECT * FROM far ORDER BY id").await,
        text(&pg, "SELECT * FROM source ORDER BY id").await
    );
    // as it goes on, and one state of it in one statement
    pg.run("INSERT INTO source VALUES (3, 'c', '2026-01-02', 3)")
        .await;
    assert_eq!(pg.count("SELECT count(*) FROM far").await, 3);
    assert_eq!(
        pg.count("SELECT count(*) FROM far VERSION AS OF 1").await,
        2
    );
    assert_eq!(
        pg.count("SELECT count(*) FROM far a JOIN far b ON a.id = b.id WHERE b.day = '2026-01-02'")
            .await,
        2
    );
    pg.run(&format!(
        "CREATE EXTERNAL TABLE files STORED AS PARQUET LOCATION '{location}'"
    ))
    .await;
    assert_eq!(
        text(&pg, "SELECT id, v, p FROM files ORDER BY id").await,
        [["1", "a", "1.25"], ["2", "b", "2.50"], ["3", "c", "3.00"]]
    );
    // what is not written cannot be
    for sql in [
        "INSERT INTO far VALUES (4, 'd', '2026-01-01', 1)",
        "UPDATE far SET v = 'x'",
        "DELETE FROM far",
        "TRUNCATE far",
        "MERGE INTO far USING source s ON far.id = s.id WHEN MATCHED THEN DELETE",
        "COPY far FROM STDIN",
        "ALTER TABLE far ADD COLUMN x INT",
        "OPTIMIZE far",
        "VACUUM far",
        "RESTORE TABLE far TO VERSION AS OF 0",
        "DESCRIBE HISTORY far",
    ] {
        let failure = pg.failure(sql).await;
        assert_eq!(failure.state, "0A000", "{sql}: {failure}");
        assert!(
            failure.message.contains("external table \"far\""),
            "{sql}: {failure}"
        );
    }
    let view = pg
        .failure("CREATE MATERIALIZED VIEW kept AS SELECT day, count(*) FROM far GROUP BY day")
        .await;
    assert_eq!(view.state, "0A000", "{view}");
    let view = pg
        .failure("CREATE MATERIALIZED VIEW kept AS SELECT v, count(*) FROM files GROUP BY v")
        .await;
    assert_eq!(view.state, "0A000", "{view}");
    pg.run("CREATE VIEW days AS SELECT day, count(*) AS n FROM far GROUP BY day")
        .await;
    assert_eq!(
        text(&pg, "SELECT * FROM days ORDER BY day").await,
        [["2026-01-01", "1"], ["2026-01-02", "2"]]
    );
    assert_eq!(
        text(
            &pg,
            "SELECT table_name, table_type, is_insertable_into FROM information_schema.tables \
             WHERE table_name IN ('far', 'files') ORDER BY 1"
        )
        .await,
        [["far", "FOREIGN", "NO"], ["files", "FOREIGN", "NO"]]
    );

    // others read it when they may, and make none
    pg.run("CREATE ROLE analyst LOGIN PASSWORD 'analyst password'")
        .await;
    let analyst = server.connect_as("analyst", "analyst password").await;
    assert_eq!(analyst.failure("SELECT * FROM far").await.state, "42501");
    pg.run("GRANT SELECT ON far TO analyst").await;
    assert_eq!(analyst.count("SELECT count(*) FROM far").await, 3);
    pg.run("GRANT CREATE ON SCHEMA public TO analyst").await;
    let refused = analyst
        .failure(&format!(
            "CREATE EXTERNAL TABLE mine STORED AS DELTA LOCATION '{location}'"
        ))
        .await;
    assert_eq!(refused.state, "42501");

    // a name goes, the files stay
    let server = server.restart().await;
    let pg = server.connect().await;
    assert_eq!(pg.count("SELECT sum(n)::bigint FROM days").await, 3);
    assert_eq!(pg.failure("DROP TABLE far").await.state, "2BP01");
    pg.run("DROP TABLE far CASCADE").await;
    pg.run("DROP TABLE files").await;
    assert_eq!(pg.count("SELECT count(*) FROM source").await, 3);
    let server = server.restart().await;
    let pg = server.connect().await;
    assert_eq!(pg.count("SELECT count(*) FROM source").await, 3);
    server.stop().await;
}
