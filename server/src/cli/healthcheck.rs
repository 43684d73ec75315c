//! `weir healthcheck`: asks a running server whether it is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::config::Config;
use crate::error::{Error, Result, SqlState};
use crate::server::Addrs;

const DEADLINE: Duration = Duration::from_secs(5);

/// `GET /readyz` at the address the server wrote down, or else at the configured one.
pub(super) async fn run(config: Config) -> Result<()> {
    let addr = match Addrs::read(&config.addresses_file()) {
        Some(addrs) => addrs.http,
        None => config.http_addr,
    };
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = format!("{scheme}://{}/readyz", reachable(addr));
    let failed = |detail: String| {
        Error::refused(
            SqlState::CANNOT_CONNECT_NOW,
            format!("no ready server at \"{url}\""),
        )
        .with_detail(detail)
    };
    let client = reqwest::Client::builder()
        .timeout(DEADLINE)
        .no_proxy()
        // nothing secret is sent and only the status is read, so whose certificate it is does not matter
        .danger_accept_invalid_certs(true)
        .build()
        .map_err(|e| failed(e.to_string()))?;
    let response = client
        .get(&url)
        .send()
        .await
        .map_err(|e| failed(e.to_string()))?;
    match response.status().is_success() {
        true => Ok(()),
        false => Err(failed(format!("it answers {}", response.status()))),
    }
}

/// A server that listens on every address is asked on loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}
