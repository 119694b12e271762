//! As much HTTP as it takes to ask a server on this machine.

use anyhow::{ensure, Context, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a server answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    /// For instance 200.
    pub status: u16,
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// The body, if the answer is 200.
    pub fn json(&self) -> Result<Value> {
        let body = String::from_utf8_lossy(&self.body);
        ensure!(self.status == 200, "the answer is {}: {body}", self.status);
        serde_json::from_str(&body).with_context(|| format!("the body is no JSON: {body}"))
    }
}

/// One request on a connection of its own. `headers` are whole lines without their ends.
pub(crate) async fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[String],
    body: &[u8],
) -> Result<HttpAnswer> {
    let mut head = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n",
        body.len()
    );
    for line in headers {
        head += &format!("{line}\r\n");
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<HttpAnswer> {
    let head_end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .context("no end of the HTTP head")?;
    let head = String::from_utf8_lossy(&answer[..head_end]);
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Ok(HttpAnswer {
        status: status.with_context(|| format!("no HTTP status in {head:?}"))?,
        body: answer[head_end + 4..].to_vec(),
    })
}
