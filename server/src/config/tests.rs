use super::*;

fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weir.toml");
    std::fs::write(&path, file).unwrap();
    let mut layers = Layers::default();
    layers.file(&path)?;
    let env: Vec<_> = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    layers.environment(&env)?;
    for (key, value) in flags {
        layers.flag(key, value)?;
    }
    layers.finish()
}

#[test]
fn later_layers_win() {
    let file =
        "data = '/file'\n[pg]\naddr = '127.0.0.1:1'\n[limits]\nbody = '1 MiB'\nconnections = 7";
    let config = load(
        file,
        &[
            ("WEIR__PG__ADDR", "127.0.0.1:2"),
            ("WEIR__AUTH__ADMIN_PASSWORD", "pw"),
        ],
        &[
            ("pg.addr", "localhost:3"),
            ("stream.flush_interval", "250 ms"),
        ],
    )
    .unwrap();
    assert_eq!(config.data, Path::new("/file"));
    assert_eq!(config.pg_addr.to_string(), "127.0.0.1:3");
    assert_eq!(config.max_body, 1 << 20);
    assert_eq!(config.max_connections, 7);
    assert_eq!(config.flush_interval, Duration::from_millis(250));
    assert_eq!(config.admin_password, Some(Secret("pw".to_owned())));
}

#[test]
fn unknown_keys_are_named() {
    let told = |file: &str, env: &[(&str, &str)]| load(file, env, &[]).unwrap_err().report();
    let report = told("[pg]\nadr = 'x'", &[]);
    assert_eq!(report.message, "unknown setting \"pg.adr\"");
    assert_eq!(report.hint.unwrap(), "did you mean \"pg.addr\"?");
    let report = told("", &[("WEIR__PG__PORT", "1")]);
    assert_eq!(report.message, "unknown setting \"pg.port\"");
    assert!(report.detail.unwrap().contains("WEIR__PG__PORT"));
}

#[test]
fn bad_values_name_the_key_and_never_a_secret() {
    let told = |env: &[(&str, &str)]| load("", env, &[]).unwrap_err().report().message;
    assert!(
        told(&[("WEIR__PG__ADDR", "nowhere")]).starts_with("setting \"pg.addr\" = \"nowhere\"")
    );
    assert!(told(&[("WEIR__GRACE", "5")]).contains("unit"));
    assert!(told(&[("WEIR__LIMITS__BODY", "99999999 TiB")]).contains("too large"));
    assert!(told(&[("WEIR__TLS__CERT", "c.pem")]).contains("tls.key"));
    assert!(load("grace = 1.5", &[], &[]).is_err());
    assert!(load("grace = ", &[], &[]).is_err());
}

#[test]
fn beyond_loopback_needs_tls_or_consent() {
    let wide = [("pg.addr", "0.0.0.0:5433")];
    assert!(
        load("", &[], &wide)
            .unwrap_err()
            .to_string()
            .contains("pg.addr")
    );
    assert!(load("insecure = true", &[], &wide).is_ok());
    assert!(load("[tls]\ncert = 'c'\nkey = 'k'", &[], &wide).is_ok());
}

#[test]
fn what_is_printed_can_be_read_back() {
    let mut layers = Layers::default();
    layers.flag("auth.admin_password", "hush").unwrap();
    layers.flag("catalog", "postgres://u:hush@h/d").unwrap();
    layers.flag("http.addr", "127.0.0.1:99").unwrap();
    let printed = layers.print();
    assert!(!printed.contains("hush"), "{printed}");
    assert!(printed.contains("# command line"));
    let again = load(&printed, &[], &[]).unwrap();
    let mut expected = layers.finish().unwrap();
    expected.admin_password = None;
    expected.catalog = None;
    assert_eq!(again, expected);
}

#[test]
fn every_key_reads_what_it_shows() {
    let config = Config::default();
    for key in keys::KEYS {
        let mut other = Config::default();
        if let Some(text) = (key.get)(&config) {
            (key.set)(&mut other, &text).unwrap();
        }
        assert_eq!(other, config, "{}", key.name);
    }
    assert!(reference().contains("pg.addr"));
}

#[test]
fn options_of_object_stores_go_by_their_own_names_and_are_not_shown() {
    let mut layers = Layers::default();
    layers
        .flag("storage.aws_secret_access_key", "hush")
        .unwrap();
    layers
        .environment(&[(
            "WEIR__STORAGE__AWS_ENDPOINT".to_owned(),
            "http://127.0.0.1:1".to_owned(),
        )])
        .unwrap();
    assert!(layers.flag("storage.aws_endpoit", "x").is_err());
    let printed = layers.print();
    assert!(!printed.contains("hush"), "{printed}");
    assert!(
        printed.contains("aws_secret_access_key is set"),
        "{printed}"
    );
    let config = layers.finish().unwrap();
    assert!(!format!("{config:?}").contains("hush"));
    assert_eq!(config.storage.len(), 2);
}
