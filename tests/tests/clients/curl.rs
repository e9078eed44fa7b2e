//! curl: uploads of every kind, ranges, heads, and both versions of HTTP, through both proxies.

use std::io::Write;

use pilotlight_tests::proxies::HOST;
use tempfile::NamedTempFile;

use crate::app::{FILE_BYTES, Way, byte};
use crate::tool::Tool;

/// Each version that it is asked to speak, and what it then says it spoke.
const VERSIONS: [(&str, &str, &str); 2] =
    [("--http1.1", "1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "2", "HTTP/2.0")];

fn curl(way: &Way) -> Option<Tool> {
    let host = format!("{HOST}:80:{}", way.front.address.ip());
    let to = format!("{HOST}:80:{}", way.front.address);
    let fixed = [
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "30",
        "--resolve",
        &host,
        "--connect-to",
        &to,
    ];
    Tool::find("curl", "--version").map(|curl| curl.with(&fixed))
}

fn url(path: &str) -> String {
    format!("http://{HOST}{path}")
}

/// Bytes to send, in a file.
fn upload(bytes: usize) -> (NamedTempFile, String, u64) {
    let content: Vec<u8> = (0..bytes).map(byte).collect();
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(&content).expect("room for it");
    let path = file.path().display().to_string();
    (file, path, content.iter().map(|&byte| u64::from(byte)).sum())
}

#[tokio::test]
async fn a_large_upload_asks_first_and_arrives_whole() {
    let way = Way::open().await;
    let Some(curl) = curl(&way) else { return };
    let (_file, path, sum) = upload(FILE_BYTES);
    for (flag, _, version) in VERSIONS {
        let said = curl.run(&[flag, "-v", "-H", "Expect: 100-continue", "-T", &path, &url("/upload")]).await;
        assert_eq!(said, format!("{FILE_BYTES} bytes, sum {sum}, of known length over {version}\n"));
    }
}

#[tokio::test]
async fn an_upload_that_the_app_refuses_is_never_sent() {
    let way = Way::open().await;
    let Some(curl) = curl(&way) else { return };
    let (_file, path, _) = upload(FILE_BYTES);
    let format = "%{http_code} %{size_upload}";
    let args = [
        "--http1.1",
        "--expect100-timeout",
        "20",
        "-H",
        "Expect: 100-continue",
        "-o",
        "/dev/null",
        "-w",
        format,
    ];
    let said = curl.run(&[&args[..], &["-T", &path, &url("/refuse")]].concat()).await;
    assert_eq!(said, "413 0");
}

#[tokio::test]
async fn an_upload_in_pieces_arrives_whole_and_in_pieces() {
    let way = Way::open().await;
    let Some(curl) = curl(&way) else { return };
    let (_file, path, sum) = upload(FILE_BYTES);
    let data = format!("@{path}");
    let args = ["--http1.1", "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary", &data];
    let said = curl.run(&[&args[..], &[&url("/upload")]].concat()).await;
    assert_eq!(said, format!("{FILE_BYTES} bytes, sum {sum}, in pieces over HTTP/1.1\n"));
}

#[tokio::test]
async fn a_piece_of_a_file_is_that_piece() {
    let way = Way::open().await;
    let Some(curl) = curl(&way) else { return };
    for (flag, number, _) in VERSIONS {
        let said = curl.run(&[flag, "--include", "-r", "1000000-1000009", &url("/file")]).await;
        let (head, body) = said.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with(&format!("HTTP/{number} 206")), "{head}");
        let place = format!("content-range: bytes 1000000-1000009/{FILE_BYTES}");
        assert!(head.to_ascii_lowercase().lines().any(|line| line == place), "{head}");
        assert!(body.bytes().eq((1_000_000..1_000_010).map(byte)), "{body}");
    }
}

#[tokio::test]
async fn a_head_tells_the_length_and_brings_no_body() {
    let way = Way::open().await;
    let Some(curl) = curl(&way) else { return };
    for (flag, ..) in VERSIONS {
        let said = curl.run(&[flag, "--head", &url("/file")]).await.to_ascii_lowercase();
        assert!(said.contains(&format!("\r\ncontent-length: {FILE_BYTES}\r\n")), "{said}");
        assert!(said.ends_with("\r\n\r\n"), "{said}");
    }
}

#[tokio::test]
async fn old_clients_and_large_files_get_along() {
    let way = Way::open().await;
    let Some(curl) = curl(&way) else { return };
    let file = url("/file");
    let one = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}\n", &file];
    // Twice over one connection where there is one to keep, but for HTTP/2: curl 7.88 cannot (its issue 10634).
    let two = [&["-o", "/dev/null"], &one[..], &[&file]].concat();
    for (flag, args, times) in [("--http1.0", &two[..], 2), ("--http1.1", &two, 2), (VERSIONS[1].0, &one, 1)]
    {
        let said = curl.run(&[&[flag], args].concat()).await;
        assert_eq!(said, format!("200 {FILE_BYTES}\n").repeat(times), "{flag}");
    }
}

#[tokio::test]
async fn a_client_may_begin_with_http_1_and_switch_to_http_2() {
    let way = Way::open().await;
    let Some(curl) = curl(&way) else { return };
    let said = curl.run(&["--http2", "-w", "HTTP/%{http_version}\n", &url("/version")]).await;
    assert_eq!(said, "HTTP/1.1\nHTTP/2\n", "the app may not know any other");
}
