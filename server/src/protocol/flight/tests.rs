use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetTables, CommandStatementIngest, CommandStatementQuery, ProstMessageExt, SqlInfo,
    TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, FlightData, FlightDescriptor,
    FlightInfo, PutResult,
};
use base64::Engine as _;
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::serve;
use crate::config::Config;
use crate::protocol::buffers::Buffers;
use crate::protocol::credentials::Credentials;
use crate::protocol::mock::{MockBackend, MockDb, PASSWORD, ROLE};
use crate::tasks;
use crate::tls::Tls;

type Client = FlightSqlServiceClient<Channel>;

const DEADLINE: Duration = Duration::from_secs(20);

struct Door {
    addr: SocketAddr,
    db: Arc<MockDb>,
    _stop: DropGuard,
}

impl Door {
    async fn open() -> Self {
        Self::open_with(None).await
    }

    async fn open_with(tls: Option<&Tls>) -> Self {
        let db = MockDb::new();
        let config = Config::for_test(std::path::Path::new("unused"));
        let backend = Arc::new(MockBackend(Arc::clone(&db)));
        let credentials = Arc::new(Credentials::new(backend, config.token_lifetime));
        let listener = TcpListener::bind(config.flight_addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        drop(tasks::spawn(
            "flight",
            serve(
                listener,
                credentials,
                &Buffers::new(config.buffer_bytes),
                &config,
                tls,
                stop.clone(),
            ),
        ));
        Self {
            addr,
            db,
            _stop: stop.drop_guard(),
        }
    }

    async fn connect(&self) -> Client {
        let endpoint = Endpoint::new(format!("http://{}", self.addr)).unwrap();
        let channel = endpoint.timeout(DEADLINE).connect().await.unwrap();
        FlightSqlServiceClient::new_from_inner(
            FlightServiceClient::new(channel).max_decoding_message_size(64 << 20),
        )
    }

    async fn login(&self) -> Client {
        let mut client = self.connect().await;
        client.handshake(ROLE, PASSWORD).await.unwrap();
        client
    }
}

async fn fetch(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    client.do_get(ticket).await?.try_collect().await
}

async fn query(client: &mut Client, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
    let info = client.execute(sql.to_owned(), None).await?;
    fetch(client, info).await
}

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
    RecordBatch::try_from_iter([("id", column)]).unwrap()
}

async fn put(
    client: &mut Client,
    path: &[&str],
    batches: Vec<RecordBatch>,
) -> Result<Vec<Value>, FlightError> {
    let descriptor = FlightDescriptor::new_path(path.iter().map(|p| (*p).to_owned()).collect());
    let data: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(stream::iter(batches.into_iter().map(Ok)))
        .try_collect()
        .await?;
    let answers: Vec<PutResult> = client
        .do_put(stream::iter(data))
        .await?
        .try_collect()
        .await?;
    Ok(answers
        .iter()
        .map(|a| serde_json::from_slice(&a.app_metadata).unwrap())
        .collect())
}

#[tokio::test]
async fn queries_stream_their_rows() {
    let door = Door::open().await;
    let mut client = door.login().await;
    let info = client
        .execute(
            "SELECT value AS n FROM generate_series(1, 100000)".to_owned(),
            None,
        )
        .await
        .unwrap();
    assert_eq!(
        info.clone().try_decode_schema().unwrap().field(0).name(),
        "n"
    );
    let batches = fetch(&mut client, info.clone()).await.unwrap();
    assert!(batches.len() > 1);
    assert_eq!(
        batches.iter().map(RecordBatch::num_rows).sum::<usize>(),
        100_000
    );
    let again = fetch(&mut client, info).await.unwrap_err();
    assert!(
        again.to_string().contains("34000"),
        "a ticket runs once: {again}"
    );
    let none = query(&mut client, "SELECT 1 AS n WHERE false")
        .await
        .unwrap();
    assert_eq!(none.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    let views = query(&mut client, "SELECT arrow_cast('x', 'Utf8View') AS v")
        .await
        .unwrap();
    assert_eq!(*views[0].column(0).data_type(), DataType::Utf8);
}

#[tokio::test]
async fn errors_carry_their_codes() {
    let door = Door::open().await;
    let mut client = door.login().await;
    let text = |e: FlightError| e.to_string();
    assert!(
        text(
            query(&mut client, "SELECT * FROM missing")
                .await
                .unwrap_err()
        )
        .contains("42P01: ")
    );
    assert!(text(query(&mut client, "SELEKT").await.unwrap_err()).contains("42601: "));
    assert!(text(query(&mut client, "SELECT 1; SELECT 2").await.unwrap_err()).contains("42601: "));
    assert!(text(query(&mut client, "SELECT 1/0").await.unwrap_err()).contains("22012: "));
    let gone = Some(bytes::Bytes::from_static(&[0; 16]));
    let gone = client.execute("SELECT 1".to_owned(), gone).await;
    let gone = gone.unwrap_err().to_string();
    assert!(gone.contains("25P01: the transaction"), "{gone}");
    assert_eq!(
        query(&mut client, "SELECT 1").await.unwrap().len(),
        1,
        "and it goes on"
    );
}

#[tokio::test]
async fn callers_must_say_who_they_are() {
    let door = Door::open().await;
    let mut client = door.connect().await;
    assert!(
        client
            .handshake(ROLE, "wrong")
            .await
            .unwrap_err()
            .to_string()
            .contains("28P01")
    );
    assert!(
        client
            .execute("SELECT 1".to_owned(), None)
            .await
            .unwrap_err()
            .to_string()
            .contains("28000")
    );
    client.set_token("guess".to_owned());
    assert!(
        client
            .execute("SELECT 1".to_owned(), None)
            .await
            .unwrap_err()
            .to_string()
            .contains("28000")
    );
    // Basic credentials on every call
    let mut client = door.connect().await;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{ROLE}:{PASSWORD}"));
    client.set_header("authorization", format!("Basic {pair}"));
    assert_eq!(query(&mut client, "SELECT 1").await.unwrap().len(), 1);
    // a new password ends the tokens of the old one
    let mut client = door.login().await;
    door.db.change_password();
    assert!(
        query(&mut client, "SELECT 1")
            .await
            .unwrap_err()
            .to_string()
            .contains("28000")
    );
}

#[tokio::test]
async fn prepared_statements_take_parameters() {
    let door = Door::open().await;
    let mut client = door.login().await;
    let mut select = client
        .prepare("SELECT $1 + 1 AS n".to_owned(), None)
        .await
        .unwrap();
    assert_eq!(select.parameter_schema().unwrap().fields().len(), 1);
    assert_eq!(select.dataset_schema().unwrap().field(0).name(), "n");
    select.set_parameters(numbers(41..42)).unwrap();
    let info = select.execute().await.unwrap();
    let rows = fetch(&mut client, info).await.unwrap();
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 42);
    select.close().await.unwrap();

    let mut insert = client
        .prepare("INSERT INTO t VALUES ($1)".to_owned(), None)
        .await
        .unwrap();
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    insert
        .set_parameters(RecordBatch::try_from_iter([("1", names)]).unwrap())
        .unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 3);
    let ran = door.db.commands.lock().unwrap().clone();
    assert_eq!(ran.len(), 3);
    assert_eq!(ran[2].1, vec![ScalarValue::from("c")]);
}

#[tokio::test]
async fn updates_give_their_counts() {
    let door = Door::open().await;
    let mut client = door.login().await;
    assert_eq!(
        client
            .execute_update("INSERT INTO t VALUES (1)".to_owned(), None)
            .await
            .unwrap(),
        1
    );
    let rows = query(&mut client, "INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    assert_eq!(door.db.commands.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn rows_are_put_to_a_path() {
    let door = Door::open().await;
    let mut client = door.login().await;
    let batches: Vec<_> = (0..40).map(|n| numbers(n * 100..(n + 1) * 100)).collect();
    let answers = put(&mut client, &["public", "events"], batches)
        .await
        .unwrap();
    let last = answers.last().unwrap();
    assert_eq!(last["accepted"], 4000);
    assert_eq!(last["rejected"], 0);
    assert!(last["token"].is_string());
    let all = door.db.table("events").all();
    assert_eq!(all.num_rows(), 4000);
    let mut ids: Vec<i64> = all.column(0).as_primitive::<Int64Type>().values().to_vec();
    ids.sort_unstable();
    assert_eq!(ids, (0..4000).collect::<Vec<_>>());
    let nothing = put(&mut client, &["public", "events"], vec![numbers(0..0)])
        .await
        .unwrap();
    assert_eq!(
        nothing,
        [json!({"accepted": 0, "rejected": 0, "duplicate": 0, "token": null})]
    );
    for (path, code) in [
        (&["public", "missing"][..], "42P01"),
        (&["public", "forbidden"][..], "42501"),
        (&["events"][..], "08P01"),
    ] {
        let refused = put(&mut client, path, vec![numbers(0..1)])
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains(code), "{refused}");
    }
}

#[tokio::test]
async fn broken_streams_are_refused_and_keep_what_was_acknowledged() {
    let door = Door::open().await;
    let mut client = door.login().await;
    let descriptor = FlightDescriptor::new_path(vec!["public".to_owned(), "events".to_owned()]);
    let mut data: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(stream::iter([Ok(numbers(0..10)), Ok(numbers(10..20))]))
        .try_collect()
        .await
        .unwrap();
    let length = data[2].data_body.len();
    data[2].data_body = data[2].data_body.slice(..length / 2);
    let answers: Vec<_> = client
        .do_put(stream::iter(data))
        .await
        .unwrap()
        .collect()
        .await;
    let end = answers.last().unwrap().as_ref().unwrap_err();
    assert!(end.message().starts_with("08P01: "), "{end}");
    let keyed = FlightData {
        app_metadata: "k".repeat(256).into(),
        ..FlightDataEncoderBuilder::new()
            .build(stream::iter([Ok(numbers(0..1))]))
            .try_collect::<Vec<_>>()
            .await
            .unwrap()[0]
            .clone()
    };
    let descriptor = FlightDescriptor::new_path(vec!["public".to_owned(), "events".to_owned()]);
    let keyed = keyed.with_descriptor(descriptor);
    let answers: Vec<_> = client
        .do_put(stream::iter([keyed]))
        .await
        .unwrap()
        .collect()
        .await;
    assert!(answers[0].as_ref().unwrap_err().message().contains("22023"));
    assert_eq!(query(&mut client, "SELECT 1").await.unwrap().len(), 1);
}

#[tokio::test]
async fn tables_are_made_and_filled_by_ingest() {
    let door = Door::open().await;
    let mut client = door.login().await;
    let command = |table: &str, missing, existing| CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: missing as i32,
            if_exists: existing as i32,
        }),
        table: table.to_owned(),
        schema: None,
        catalog: None,
        temporary: false,
        transaction_id: None,
        options: std::collections::HashMap::new(),
    };
    use TableExistsOption as Exists;
    use TableNotExistOption as Missing;
    let mut ingest = async |c| {
        client
            .execute_ingest(c, stream::iter([Ok(numbers(0..7))]))
            .await
    };
    assert_eq!(
        ingest(command("events", Missing::Fail, Exists::Append))
            .await
            .unwrap(),
        7
    );
    assert_eq!(
        ingest(command("fresh", Missing::Create, Exists::Fail))
            .await
            .unwrap(),
        7
    );
    let sql = door.db.commands.lock().unwrap()[0].0.clone();
    assert_eq!(sql, "CREATE TABLE \"public\".\"fresh\" (\"id\" bigint)");
    for (c, code) in [
        (command("fresh", Missing::Create, Exists::Fail), "42P07"),
        (command("fresh", Missing::Create, Exists::Replace), "0A000"),
        (command("gone", Missing::Fail, Exists::Append), "42P01"),
    ] {
        let refused = ingest(c).await.unwrap_err().to_string();
        assert!(refused.contains(code), "{refused}");
    }
    assert_eq!(door.db.table("fresh").rows(), 7);
}

#[tokio::test]
async fn drivers_find_what_they_ask_for() {
    let door = Door::open().await;
    let mut client = door.login().await;
    let info = client.get_catalogs().await.unwrap();
    let catalogs = fetch(&mut client, info).await.unwrap();
    assert_eq!(catalogs[0].column(0).as_string::<i32>().value(0), "weir");
    let tables = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: Some("information_schema".to_owned()),
        table_name_filter_pattern: Some("table%".to_owned()),
        table_types: Vec::new(),
        include_schema: true,
    };
    let info = client.get_tables(tables).await.unwrap();
    let found = fetch(&mut client, info).await.unwrap();
    assert_eq!(found[0].num_rows(), 1);
    assert_eq!(found[0].column(2).as_string::<i32>().value(0), "tables");
    assert_eq!(found[0].num_columns(), 5);
    let info = client.get_table_types().await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap()[0].num_rows(), 3);
    let info = client
        .get_sql_info(vec![SqlInfo::FlightSqlServerTransaction])
        .await
        .unwrap();
    let sql_info = fetch(&mut client, info).await.unwrap();
    let value = sql_info[0].column(1).as_union();
    assert_eq!(value.type_id(0), 3, "a 32-bit number");
    let info = client.get_sql_info(Vec::new()).await.unwrap();
    assert!(fetch(&mut client, info).await.unwrap()[0].num_rows() > 70);
    let info = client
        .get_xdbc_type_info(arrow_flight::sql::CommandGetXdbcTypeInfo { data_type: None })
        .await
        .unwrap();
    assert!(fetch(&mut client, info).await.unwrap()[0].num_rows() > 10);
}

#[tokio::test]
async fn schemas_can_be_asked_for_alone() {
    let door = Door::open().await;
    let client = door.login().await;
    let token = client.token().unwrap().clone();
    let ask = async |descriptor: FlightDescriptor| {
        let mut request = tonic::Request::new(descriptor);
        let header = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        let endpoint = Endpoint::new(format!("http://{}", door.addr)).unwrap();
        let mut raw = FlightServiceClient::new(endpoint.connect().await.unwrap());
        raw.get_schema(request)
            .await
            .map(tonic::Response::into_inner)
    };
    let command = CommandStatementQuery {
        query: "SELECT 1 AS n".to_owned(),
        transaction_id: None,
    };
    let result = ask(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()))
        .await
        .unwrap();
    assert_eq!(Schema::try_from(&result).unwrap().field(0).name(), "n");
    let path = FlightDescriptor::new_path(vec!["public".to_owned(), "events".to_owned()]);
    let result = ask(path).await.unwrap();
    assert_eq!(Schema::try_from(&result).unwrap().fields().len(), 6);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_query() {
    let door = Door::open().await;
    let mut client = door.login().await;
    let info = client
        .execute("SELECT 'endless'".to_owned(), None)
        .await
        .unwrap();
    let mut rows = client
        .do_get(info.endpoint[0].ticket.clone().unwrap())
        .await
        .unwrap();
    assert!(rows.next().await.unwrap().is_ok());
    drop(rows);
    tokio::time::timeout(DEADLINE, door.db.dropped.notified())
        .await
        .expect("the query is dropped");
}

#[tokio::test]
async fn a_query_can_be_cancelled_by_its_info() {
    let door = Door::open().await;
    let mut client = door.login().await;
    let info = client
        .execute("SELECT 'endless'".to_owned(), None)
        .await
        .unwrap();
    let mut rows = client
        .do_get(info.endpoint[0].ticket.clone().unwrap())
        .await
        .unwrap();
    assert!(rows.next().await.unwrap().is_ok());
    let action = Action {
        r#type: "CancelFlightInfo".to_owned(),
        body: CancelFlightInfoRequest { info: Some(info) }
            .encode_to_vec()
            .into(),
    };
    let mut request = tonic::Request::new(action);
    let header = format!("Bearer {}", client.token().unwrap())
        .parse()
        .unwrap();
    request.metadata_mut().insert("authorization", header);
    let mut raw = client.inner().clone();
    let answer = raw
        .do_action(request)
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap();
    let answer = CancelFlightInfoResult::decode(answer.unwrap().body).unwrap();
    assert_eq!(answer.status, arrow_flight::CancelStatus::Cancelled as i32);
    let end = tokio::time::timeout(DEADLINE, async {
        loop {
            match rows.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    });
    let end = end
        .await
        .expect("the stream ends")
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(end.contains("57014"), "{end}");
}

#[tokio::test]
async fn garbage_on_the_port_hurts_nobody() {
    let door = Door::open().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        &[0xff; 512],
    ] {
        let mut socket = TcpStream::connect(door.addr).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        drop(socket);
    }
    let mut client = door.login().await;
    assert_eq!(query(&mut client, "SELECT 1").await.unwrap().len(), 1);
}

#[tokio::test]
async fn tls_carries_calls() {
    let (tls, pem) = crate::tls::tests::self_signed();
    let door = Door::open_with(Some(&tls)).await;
    let trust = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem))
        .domain_name("localhost");
    let endpoint = Endpoint::new(format!("https://{}", door.addr)).unwrap();
    let channel = endpoint
        .tls_config(trust)
        .unwrap()
        .timeout(DEADLINE)
        .connect()
        .await
        .unwrap();
    let mut client = FlightSqlServiceClient::new(channel);
    client.handshake(ROLE, PASSWORD).await.unwrap();
    assert_eq!(query(&mut client, "SELECT 1").await.unwrap().len(), 1);
}
