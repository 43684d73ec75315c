//! Flight SQL: prepared statements with parameters, metadata, changes, ingest of many batches.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow_flight::sql::EndTransaction;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables, SqlInfo};
use tests::TestServer;
use tests::flight::FlightSession;

fn ids(from: i64, count: i64) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ]);
    let names = (from..from + count).map(|i| (i % 2 == 0).then(|| format!("name {i}")));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(from..from + count)),
        Arc::new(names.collect::<StringArray>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

async fn started() -> (TestServer, FlightSession) {
    let server = TestServer::start().await;
    let flight = server.flight().await;
    let pg = server.connect().await;
    pg.run("CREATE STREAMING TABLE t (id BIGINT NOT NULL, name TEXT)")
        .await;
    (server, flight)
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_hold_rows_until_they_end() {
    let (server, mut flight) = started().await;
    let pg = server.connect().await;
    let count = "SELECT count(*) FROM t";
    for (how, after) in [(EndTransaction::Rollback, 0), (EndTransaction::Commit, 2)] {
        let client = flight.client();
        let block = client.begin_transaction().await.unwrap();
        for id in 0..2 {
            let sql = format!("INSERT INTO t VALUES ({id}, 'x')");
            let rows = client.execute_update(sql, Some(block.clone())).await;
            assert_eq!(rows.unwrap(), 1);
        }
        let info = client
            .execute(count.to_owned(), Some(block.clone()))
            .await
            .unwrap();
        let own = flight.fetch(info).await.unwrap();
        let own = own[0].column(0).as_primitive::<Int64Type>().value(0);
        assert_eq!(own, 2, "the block sees its rows");
        assert_eq!(pg.count(count).await, 0, "others do not");
        let client = flight.client();
        client.end_transaction(block.clone(), how).await.unwrap();
        assert_eq!(pg.count(count).await, after);
        let again = client.end_transaction(block, how).await.unwrap_err();
        assert!(again.to_string().contains("25P01"), "{again}");
    }
    // a block that failed stores nothing
    let client = flight.client();
    let block = client.begin_transaction().await.unwrap();
    let failed = client.execute_update(
        "INSERT INTO t VALUES ('x', 'x')".to_owned(),
        Some(block.clone()),
    );
    assert!(failed.await.unwrap_err().to_string().contains("22P02"));
    let next = client.execute_update(
        "INSERT INTO t VALUES (9, 'x')".to_owned(),
        Some(block.clone()),
    );
    assert!(next.await.unwrap_err().to_string().contains("25P02"));
    client
        .end_transaction(block, EndTransaction::Commit)
        .await
        .unwrap();
    assert_eq!(pg.count(count).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_arrive_whole_and_in_order() {
    let (server, mut flight) = started().await;
    let batches: Vec<_> = (0..10).map(|n| ids(n * 1000, 1000)).collect();
    flight.put("public", "t", batches).await.unwrap();
    let rows = flight
        .query("SELECT id, name FROM t ORDER BY _lsn")
        .await
        .unwrap();
    let read = rows
        .iter()
        .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec());
    assert!(read.eq(0..10_000));
    let nulls: usize = rows.iter().map(|b| b.column(1).null_count()).sum();
    assert_eq!(nulls, 5_000);

    // Columns are found by name, in any order; missing ones are NULL.
    let turned = ids(20_000, 3).project(&[1, 0]).unwrap();
    flight.put("public", "t", vec![turned]).await.unwrap();
    let alone = ids(30_000, 3).project(&[0]).unwrap();
    flight.put("public", "t", vec![alone]).await.unwrap();
    assert_eq!(
        flight
            .value("SELECT count(name) FROM t WHERE id >= 20000")
            .await,
        "2"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_take_parameters() {
    let (server, mut flight) = started().await;
    flight.put("public", "t", vec![ids(0, 100)]).await.unwrap();
    let sql = "SELECT id FROM t WHERE id >= $1 AND id < $2 ORDER BY id";
    let mut prepared = flight.client().prepare(sql.to_owned(), None).await.unwrap();
    // The result's shape is known before it runs.
    assert_eq!(prepared.dataset_schema().unwrap().field(0).name(), "id");
    assert_eq!(prepared.parameter_schema().unwrap().fields().len(), 2);
    for from in [5i64, 50] {
        let schema = Schema::new(vec![
            Field::new("$1", DataType::Int64, true),
            Field::new("$2", DataType::Int64, true),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![from])),
            Arc::new(Int64Array::from(vec![from + 3])),
        ];
        let parameters = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        prepared.set_parameters(parameters).unwrap();
        let info = prepared.execute().await.unwrap();
        let rows = flight.fetch(info).await.unwrap();
        let read: Vec<i64> = rows
            .iter()
            .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert_eq!(read, [from, from + 1, from + 2]);
    }
    prepared.close().await.unwrap();
    assert!(
        flight
            .client()
            .prepare("SELEC 1".to_owned(), None)
            .await
            .is_err()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_report_their_rows() {
    let (server, mut flight) = started().await;
    assert_eq!(
        flight
            .run("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)")
            .await
            .unwrap(),
        3
    );
    assert_eq!(
        flight
            .run("UPDATE t SET name = 'c' WHERE id > 1")
            .await
            .unwrap(),
        2
    );
    assert_eq!(flight.run("DELETE FROM t WHERE id = 1").await.unwrap(), 1);
    flight.run("CREATE TABLE made (a INT)").await.unwrap();
    assert_eq!(flight.value("SELECT count(*) FROM made").await, "0");
    let refused = flight
        .run("DELETE FROM missing")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("42P01") && refused.contains("missing"),
        "{refused}"
    );
    server.stop().await;
}

fn words(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let cells = batches.iter().flat_map(|batch| {
        let values = batch.column_by_name(column).expect("the column");
        let values = arrow::compute::cast(values, &DataType::Utf8).expect("text");
        values
            .as_string::<i32>()
            .iter()
            .flatten()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    cells.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_names_what_is_there() {
    let (server, mut flight) = started().await;
    let info = flight.client().get_catalogs().await.unwrap();
    let catalogs = flight.fetch(info).await.unwrap();
    assert!(words(&catalogs, "catalog_name").contains(&"weir".to_owned()));

    let request = CommandGetDbSchemas {
        catalog: None,
        db_schema_filter_pattern: None,
    };
    let info = flight.client().get_db_schemas(request).await.unwrap();
    let schemas = flight.fetch(info).await.unwrap();
    assert!(words(&schemas, "db_schema_name").contains(&"public".to_owned()));

    let request = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: Some("public".to_owned()),
        table_name_filter_pattern: None,
        table_types: Vec::new(),
        include_schema: true,
    };
    let info = flight.client().get_tables(request).await.unwrap();
    let found = flight.fetch(info).await.unwrap();
    assert_eq!(words(&found, "table_name"), ["t"]);
    assert!(
        found[0].column_by_name("table_schema").is_some(),
        "schemas were asked for"
    );

    let info = flight.client().get_table_types().await.unwrap();
    assert!(!flight.fetch(info).await.unwrap().is_empty());
    let info = flight
        .client()
        .get_sql_info(vec![SqlInfo::FlightSqlServerName])
        .await
        .unwrap();
    assert!(!flight.fetch(info).await.unwrap().is_empty());
    server.stop().await;
}
