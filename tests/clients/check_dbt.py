#!/usr/bin/env python3
"""dbt against a running weir: seed, views, tables, incremental models, materialized views, tests, snapshots, docs.
Needs dbt-postgres: its program is DBT (default: dbt). Without it says so and is left out."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import psycopg

from common import Checks, equal

checks = Checks(__doc__)
dbt = shutil.which(os.environ.get("DBT", "dbt"))
if dbt is None:
    print("skipped: no dbt")
    sys.exit(0)

FILES = {
    "dbt_project.yml": """
        name: shop
        version: "1.0"
        profile: shop
        flags:
          send_anonymous_usage_stats: false
    """,
    "profiles.yml": f"""
        shop:
          target: dev
          outputs:
            dev:
              type: postgres
              host: {checks.pg_host}
              port: {checks.pg_port}
              dbname: weir
              user: {checks.user}
              password: "{{{{ env_var('WEIR_PASSWORD') }}}}"
              schema: dbt_shop
              threads: 2
    """,
    "seeds/orders.csv": "id,region,amount,day\n1,north,10.5,2026-01-01\n2,south,20.25,2026-01-02\n3,north,5,2026-01-03\n",
    "models/cleaned.sql": "SELECT id, region, amount::numeric(10, 2) AS amount, day::date AS day FROM {{ ref('orders') }}",
    "models/regions.sql": """
        {{ config(materialized='table') }}
        SELECT region, sum(amount) AS total, count(*) AS orders FROM {{ ref('cleaned') }} GROUP BY region
    """,
    "models/history.sql": """
        {{ config(materialized='incremental', unique_key='id') }}
        SELECT * FROM {{ ref('cleaned') }}
        {% if is_incremental() %} WHERE day >= (SELECT max(day) FROM {{ this }}) {% endif %}
    """,
    "models/daily.sql": """
        {{ config(materialized='materialized_view') }}
        SELECT day, sum(amount) AS total FROM {{ ref('history') }} GROUP BY day
    """,
    "models/models.yml": """
        version: 2
        models:
          - name: regions
            columns:
              - name: region
                data_tests: [unique, not_null]
          - name: history
            columns:
              - name: id
                data_tests:
                  - unique
                  - relationships: {arguments: {to: ref('orders'), field: id}}
    """,
    "snapshots/orders_seen.sql": """
        {% snapshot orders_seen %}
        {{ config(target_schema='dbt_shop', unique_key='id', strategy='check', check_cols=['amount']) }}
        SELECT * FROM {{ ref('cleaned') }}
        {% endsnapshot %}
    """,
}


def lay_out(folder):
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").split("\n")
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        path.write_text("\n".join(line[indent:] for line in lines) + "\n")


def run(folder, *words):
    environment = {**os.environ, "DBT_PROFILES_DIR": str(folder), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    command = [dbt, "--no-use-colors", "--quiet", *words]
    told = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    if told.returncode != 0:
        raise AssertionError((told.stdout + told.stderr)[-1500:])


def rows(sql):
    with psycopg.connect(**checks.pg, autocommit=True) as connection:
        return connection.execute(sql).fetchall()


def clean_up():
    with psycopg.connect(**checks.pg, autocommit=True) as connection:
        connection.execute("DROP SCHEMA dbt_shop CASCADE")


with tempfile.TemporaryDirectory() as name:
    project = pathlib.Path(name)
    lay_out(project)
    for words in (["debug"], ["seed"], ["run"], ["run"], ["test"], ["snapshot"], ["snapshot"], ["docs", "generate"]):
        checks.check("dbt " + " ".join(words), lambda: run(project, *words))
    totals = "SELECT region, total::text FROM dbt_shop.regions ORDER BY region"
    checks.check("totals", lambda: equal(rows(totals), [("north", "15.50"), ("south", "20.25")]))
    for table in ("history", "daily", "orders_seen"):
        count = f"SELECT count(*) FROM dbt_shop.{table}"
        checks.check(table, lambda: equal(rows(count), [(3,)]))
checks.check("clean up", clean_up)
checks.end()
