//! HTTP/2 frames by hand over TLS (RFC 9113), for what no client library would say.
//!
//! Nothing is kept of the connection's state: a test says each frame itself, also the wrong ones. The trap: a peer that is
//! told nonsense closes the connection, so a write that fails is what such a test hopes for.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::product::HostApi;
use crate::tls;

/// DATA.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PING.
pub const PING: u8 = 6;
/// CONTINUATION.
pub const CONTINUATION: u8 = 9;

/// The flag by which HEADERS and DATA end a stream.
pub const END_STREAM: u8 = 1;
/// The flag by which HEADERS and CONTINUATION end the headers.
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// For one write, and for the end of a connection.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where frames are sent to, and whom to trust there.
#[derive(Clone)]
pub struct Target {
    address: String,
    connector: TlsConnector,
}

/// One connection.
pub struct Frames {
    stream: TlsStream<TcpStream>,
}

impl Target {
    /// The session port of a host-api.
    ///
    /// # Errors
    /// When its authority cannot be read.
    pub fn of(host_api: &HostApi) -> anyhow::Result<Self> {
        Self::at(host_api.address(), host_api)
    }

    /// The admission port of a host-api.
    ///
    /// # Errors
    /// As [`Target::of`].
    pub fn admission(host_api: &HostApi) -> anyhow::Result<Self> {
        Self::at(host_api.admission_url().trim_start_matches("https://").to_owned(), host_api)
    }

    fn at(address: String, host_api: &HostApi) -> anyhow::Result<Self> {
        tls::install_provider();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(host_api.ca_pem().as_bytes()) {
            roots.add(certificate?)?;
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// A TCP connection on which nothing is said.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn silent(&self) -> io::Result<TcpStream> {
        TcpStream::connect(&self.address).await
    }

    /// A connection after its handshake, with the preface and these settings said.
    ///
    /// # Errors
    /// When the other side closes it.
    pub async fn connect(&self, settings: &[(u16, u32)]) -> anyhow::Result<Frames> {
        let name = ServerName::try_from("127.0.0.1")?;
        let connected = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            self.connector.connect(name, stream).await
        };
        let stream = timeout(DEADLINE, connected).await.context("no handshake in time")??;
        let mut frames = Frames { stream };
        let mut first = PREFACE.to_vec();
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
        frame_into(&mut first, SETTINGS, 0, 0, &settings);
        frames.send(&first).await?;
        Ok(frames)
    }
}

impl Frames {
    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side has closed the connection, or takes nothing.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(DEADLINE, sent).await?
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// As [`Frames::send`].
    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame_into(&mut bytes, kind, flags, stream, payload);
        self.send(&bytes).await
    }

    /// Sends pieces, one after the other, until the other side closes. Gives how many were sent.
    ///
    /// # Errors
    /// When it does not close.
    pub async fn until_closed(&mut self, pieces: impl Iterator<Item = Vec<u8>>) -> anyhow::Result<usize> {
        let sent = Cell::new(0);
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let write = async {
            for piece in pieces {
                if writer.write_all(&piece).await.is_err() {
                    return;
                }
                sent.set(sent.get() + 1);
            }
            writer.flush().await.ok();
            std::future::pending().await
        };
        let read = async {
            let mut heard = vec![0; 16 * 1024];
            while !matches!(reader.read(&mut heard).await, Ok(0) | Err(_)) {}
        };
        let closed = async {
            tokio::select! {
                () = write => {}
                () = read => {}
            }
        };
        timeout(DEADLINE, closed).await.with_context(|| format!("open after {} pieces", sent.get()))?;
        Ok(sent.get())
    }

    /// Reads what comes until the connection is closed.
    ///
    /// # Errors
    /// When it stays open.
    pub async fn closed(&mut self, deadline: Duration) -> anyhow::Result<Vec<u8>> {
        let mut heard = Vec::new();
        let mut piece = [0; 4096];
        let read = async {
            while let Ok(length @ 1..) = self.stream.read(&mut piece).await {
                heard.extend_from_slice(&piece[..length]);
            }
        };
        timeout(deadline, read).await.context("the connection stays open")?;
        Ok(heard)
    }
}

/// Appends a frame.
pub fn frame_into(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a payload of a frame is short");
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// The headers of `POST /v1/session` with this token, as a block of literals (RFC 7541, section 6.2.2).
#[must_use]
pub fn session_headers(token: &str) -> Vec<u8> {
    let authorization = format!("Bearer {token}");
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "127.0.0.1"),
        (":path", "/v1/session"),
        ("authorization", &authorization),
    ] {
        header_into(&mut block, name, value);
    }
    block
}

/// Appends a header.
pub fn header_into(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        length_into(block, text.len());
        block.extend_from_slice(text.as_bytes());
    }
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn length_into(block: &mut Vec<u8>, length: usize) {
    let byte = |number: usize| u8::try_from(number).expect("seven bits");
    if length < 127 {
        return block.push(byte(length));
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(byte(rest % 128) | 128);
        rest /= 128;
    }
    block.push(byte(rest));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_length_kind_flags_and_stream_before_its_payload() {
        let mut bytes = Vec::new();
        frame_into(&mut bytes, DATA, END_STREAM, 3, b"ab");
        assert_eq!(bytes, [0, 0, 2, 0, 1, 0, 0, 0, 3, b'a', b'b']);
    }

    #[test]
    fn long_texts_have_their_length_in_groups_of_seven_bits() {
        let mut block = Vec::new();
        length_into(&mut block, 126);
        length_into(&mut block, 1_337 + 96);
        assert_eq!(block, [126, 127, 154, 10], "1433 - 127 = 1306 = 10 * 128 + 26");
    }
}
