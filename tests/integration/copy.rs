//! COPY in and out, in all three formats.

use futures::{TryStreamExt, pin_mut};
use tests::{PgSession, TestServer};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::types::Type;

async fn table(pg: &PgSession, kind: &str) {
    pg.run(&format!(
        "CREATE {kind} t (id INT NOT NULL, name TEXT, price DOUBLE PRECISION, day DATE)"
    ))
    .await;
}

const KINDS: [&str; 2] = ["TABLE", "STREAMING TABLE"];

#[tokio::test(flavor = "multi_thread")]
async fn text_format_round_trips() {
    for kind in KINDS {
        let server = TestServer::start().await;
        let pg = server.connect().await;
        table(&pg, kind).await;
        let data = "1\tplain\t1.5\t2026-01-01\n2\ttab\\there\\nnewline\\\\slash\t\\N\t\\N\n3\t\t-0.25\t1999-12-31\n4\t\\N\t1e+300\t\\N\n";
        assert_eq!(
            pg.copy_in("COPY t FROM STDIN", data.as_bytes())
                .await
                .unwrap(),
            4
        );
        assert_eq!(
            pg.value("SELECT name FROM t WHERE id = 2").await,
            "tab\there\nnewline\\slash"
        );
        assert_eq!(pg.count("SELECT count(*) FROM t WHERE name = ''").await, 1);
        let out = pg
            .copy_out("COPY (SELECT * FROM t ORDER BY id) TO STDOUT")
            .await
            .unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), data, "{kind}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_format_round_trips() {
    for kind in KINDS {
        let server = TestServer::start().await;
        let pg = server.connect().await;
        table(&pg, kind).await;
        let data = "id,name,price,day\n1,plain,1.5,2026-01-01\n2,\"quote \"\" comma , line\nbreak\",,\n3,\"\",2,\n";
        let sql = "COPY t FROM STDIN WITH (FORMAT csv, HEADER)";
        assert_eq!(pg.copy_in(sql, data.as_bytes()).await.unwrap(), 3);
        assert_eq!(
            pg.value("SELECT name FROM t WHERE id = 2").await,
            "quote \" comma , line\nbreak"
        );
        assert_eq!(pg.count("SELECT count(*) FROM t WHERE name = ''").await, 1);
        let sql = "COPY (SELECT * FROM t ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)";
        let out = pg.copy_out(sql).await.unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), data, "{kind}");

        // Columns by name, another separator, another mark for NULL.
        let sql = "COPY t (name, id) FROM STDIN WITH (FORMAT csv, DELIMITER ';', NULL 'nil')";
        assert_eq!(pg.copy_in(sql, b"x;10\nnil;11\n").await.unwrap(), 2);
        assert_eq!(pg.value("SELECT name FROM t WHERE id = 11").await, "NULL");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_format_round_trips() {
    for kind in KINDS {
        let server = TestServer::start().await;
        let pg = server.connect().await;
        table(&pg, kind).await;
        let types = [Type::INT4, Type::TEXT, Type::FLOAT8];
        let sink = pg
            .client()
            .copy_in("COPY t (id, name, price) FROM STDIN BINARY")
            .await
            .unwrap();
        let writer = BinaryCopyInWriter::new(sink, &types);
        pin_mut!(writer);
        for id in 0..1000i32 {
            let name = (id % 3 != 0).then(|| format!("name {id}"));
            writer
                .as_mut()
                .write(&[&id, &name, &f64::from(id)])
                .await
                .unwrap();
        }
        assert_eq!(writer.finish().await.unwrap(), 1000);
        assert_eq!(pg.count("SELECT count(name) FROM t").await, 666);

        let sql = "COPY (SELECT id, name, price FROM t ORDER BY id) TO STDOUT BINARY";
        let stream = pg.client().copy_out(sql).await.unwrap();
        let rows = BinaryCopyOutStream::new(stream, &types);
        let rows: Vec<_> = rows.try_collect().await.unwrap();
        assert_eq!(rows.len(), 1000);
        for (id, row) in (0..1000i32).zip(&rows) {
            assert_eq!(row.get::<i32>(0), id);
            assert_eq!(row.get::<Option<&str>>(1).is_none(), id % 3 == 0);
            assert_eq!(row.get::<f64>(2), f64::from(id));
        }
        server.stop().await;
    }
}

/// A COPY that the client gives up stores nothing and leaves a working session.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_copy_leaves_nothing() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    table(&pg, "STREAMING TABLE").await;
    {
        let sink = pg
            .client()
            .copy_in::<_, bytes::Bytes>("COPY t (id) FROM STDIN")
            .await
            .unwrap();
        pin_mut!(sink);
        futures::SinkExt::send(&mut sink, bytes::Bytes::from_static(b"1\n2\n"))
            .await
            .unwrap();
        // Dropped here without CopyDone: the driver sends CopyFail.
    }
    assert_eq!(pg.count("SELECT count(*) FROM t").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_copy_cannot_do_is_refused() {
    let server = TestServer::start().await;
    let pg = server.connect().await;
    table(&pg, "TABLE").await;
    for sql in [
        "COPY t FROM '/etc/passwd'",
        "COPY t TO '/tmp/out'",
        "COPY t FROM PROGRAM 'true'",
    ] {
        let failure = pg.failure(sql).await;
        assert!(
            ["0A000", "42501"].contains(&failure.state.as_str()),
            "{sql}: {failure}"
        );
    }
    let odd = pg
        .copy_in("COPY t FROM STDIN WITH (FORMAT xml)", b"")
        .await
        .unwrap_err();
    assert!(
        ["0A000", "22023", "42601"].contains(&odd.state.as_str()),
        "{odd}"
    );
    server.stop().await;
}
