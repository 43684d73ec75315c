//! Columns change under rows that are on their way.

use std::collections::HashMap;

use super::*;
use crate::types::{GENERATED_KEY, MISSING_KEY};

/// The table's stored columns and one more.
fn with_extra(lake: &LakeSnapshot, key: &str, value: &str) -> SchemaRef {
    let extra = Field::new("extra", DataType::Int64, key == GENERATED_KEY);
    let extra = extra.with_metadata(HashMap::from([(key.to_owned(), value.to_owned())]));
    let mut fields: Vec<Field> = lake
        .schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    fields.push(extra);
    Arc::new(Schema::new(fields))
}

async fn commit(lake: LakeSnapshot, schema: SchemaRef) -> Result<Option<LakeSnapshot>> {
    let commit = lake::Commit {
        schema: Some(schema),
        txn: Some(("schema".to_owned(), lake.version + 1)),
        ..lake::Commit::default()
    };
    lake::commit(&lake, commit).await.map(Some)
}

fn extras(stream: &Stream) -> Vec<i64> {
    let head = stream.head();
    let tail = &head.tables[&Oid(1)].tail;
    let values = tail
        .iter()
        .flat_map(|part| int_column(&part.batch, "extra"));
    values.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_before_get_the_value_that_the_new_column_says() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    let writer = {
        let stream = Arc::clone(&stream);
        crate::tasks::spawn("test", async move {
            for n in 0..200 {
                // always in the columns of before
                stream
                    .append(vec![(Oid(1), vec![batch(n..n + 1)])])
                    .await
                    .unwrap();
            }
        })
    };
    while stream.head().visible < Lsn(20) {
        tokio::task::yield_now().await;
    }
    stream
        .alter(Oid(1), false, async |lake| {
            let schema = with_extra(&lake, MISSING_KEY, "7");
            commit(lake, schema).await
        })
        .await
        .unwrap();
    writer.await.unwrap();
    assert_eq!(extras(&stream), vec![7; 200]);
    crash(stream).await;

    // the catalog was not told: the stored columns count
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(
        stream.head().tables[&Oid(1)].schema.field(2).name(),
        "extra"
    );
    assert_eq!(extras(&stream), vec![7; 200]);
    stream.flush(Oid(1)).await.unwrap();
    assert_eq!(
        visible(&stream, &dir, 1).await,
        (0..200).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_still_table_has_its_rows_stored_and_takes_none_that_do_not_fit() {
    let dir = TempDir::new().unwrap();
    let stream = open(&dir, &[]).await.unwrap();
    stream.create_table(spec(&dir, 1, true)).await.unwrap();
    stream
        .append(vec![(Oid(1), vec![batch(0..5)])])
        .await
        .unwrap();
    let waiting = Mutex::new(None);
    stream
        .alter(Oid(1), true, async |lake| {
            assert_eq!(lake.rows(), Some(5));
            let late = Arc::clone(&stream);
            let late = crate::tasks::spawn("test", async move {
                late.append(vec![(Oid(1), vec![batch(5..6)])]).await
            });
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!late.is_finished(), "it did not wait");
            *waiting.lock().unwrap() = Some(late);
            let schema = with_extra(&lake, GENERATED_KEY, "id + 1");
            commit(lake, schema).await
        })
        .await
        .unwrap();
    let late = waiting.into_inner().unwrap().unwrap().await.unwrap();
    assert_eq!(late.unwrap_err().state(), SqlState::SERIALIZATION_FAILURE);
    let stored = stream.head();
    assert!(stored.tables[&Oid(1)].tail.is_empty());
    crash(stream).await;
    let stream = open(&dir, &[(1, true)]).await.unwrap();
    assert_eq!(visible(&stream, &dir, 1).await, (0..5).collect::<Vec<_>>());
}
