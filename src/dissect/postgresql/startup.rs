//! What comes before typed messages: requests for encryption, the startup message, cancellation; and the login itself.

use super::queue::Held;
use super::wire::Header;
use super::{Cursor, Cx, Malformed, Message, Postgresql, Progress, Step, Switch, Text, Value, text};
use crate::entry::Direction;
use crate::fields;

/// Codes in the place of a version.
pub(super) const CANCEL: u32 = 80_877_102;
pub(super) const SSL: u32 = 80_877_103;
pub(super) const GSSENC: u32 = 80_877_104;
/// The largest startup message.
pub(super) const MAX_STARTUP: u32 = 10_000;
/// The longest secret key of a CancelRequest, with what precedes it.
pub(super) const MAX_CANCEL: u32 = 12 + 256;
/// The largest answer to a request for encryption that is an error.
const MAX_ERROR: usize = 30_000;

/// The kinds of authentication that answers have to be told apart for.
pub(super) const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;

impl Postgresql {
    /// A message without a type.
    pub(super) fn startup(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let (Ok(len), Ok(code)) = (cursor.u32(), cursor.u32()) else { return Ok(Progress::Need(8 - bytes.len())) };
        let total = len as usize;
        match (code, len) {
            (SSL | GSSENC, 8) => {
                // A row only if the server answers with an error.
                let mut message = Message::request(Direction::ToServer, "Startup", String::new(), cx);
                message.bytes = total as u64;
                if cx.detail() {
                    let name = if code == SSL { "SSLRequest" } else { "GSSENCRequest" };
                    message.detail = fields! { "message" => name };
                }
                self.negotiating = Some(message);
            }
            (CANCEL, 12..=MAX_CANCEL) => {
                let Some(body) = bytes.get(8..total) else { return Ok(Progress::Need(total - bytes.len())) };
                let mut message = Message::one_way(Direction::ToServer, "CancelRequest", String::new(), cx);
                message.bytes = total as u64;
                if cx.detail() {
                    let mut body = Cursor::new(body);
                    let process = body.u32()?;
                    message.detail = fields! { "process_id" => process, "secret_key" => secret(body.rest(), cx) };
                }
                cx.emit(message);
            }
            (_, 9..=MAX_STARTUP) if code >> 16 == 3 => {
                let Some(body) = bytes.get(8..total) else { return Ok(Progress::Need(total - bytes.len())) };
                self.negotiating = None;
                let message = startup_message(body, code, total, cx)?;
                self.queue.push(Step::Startup, Some(Held::new(message)), cx);
            }
            _ => return Err(Malformed("neither a startup message of version 3 nor a request for encryption")),
        }
        Ok(Progress::Consumed(total))
    }

    /// The server's answer to a request for encryption: one byte.
    pub(super) fn negotiated(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Option<Progress>, Malformed> {
        match bytes.first() {
            Some(b'S') => Ok(Some(Progress::Switch(1, Switch::Detect))),
            // GSSAPI encrypts all that follows.
            Some(b'G') => Ok(Some(Progress::Ignore)),
            Some(b'N') => {
                self.negotiating = None;
                Ok(Some(Progress::Consumed(1)))
            }
            Some(b'E') => {
                let Some(header) = Header::parse(bytes) else { return Ok(Some(Progress::Need(1))) };
                if !header.is_valid(Direction::ToClient) || header.body > MAX_ERROR {
                    return Err(Malformed("no answer to a request for encryption"));
                }
                if let Some(message) = self.negotiating.take() {
                    self.queue.push(Step::Startup, Some(Held::new(message)), cx);
                }
                Ok(None)
            }
            _ => {
                self.negotiating = None;
                Ok(None)
            }
        }
    }

    /// The client's part of the authentication.
    pub(super) fn password(&mut self, header: Header, body: &[u8], cx: &Cx<'_>) {
        let authentication = self.authentication;
        let Some(held) = self.queue.held().filter(|held| held.message.operation == "Startup") else { return };
        held.message.bytes += header.total() as u64;
        if !cx.detail() {
            return;
        }
        let mut cursor = Cursor::new(body);
        match authentication {
            SASL => {
                if let (Ok(mechanism), Ok(_)) = (cursor.until(0), cursor.u32()) {
                    self.note("sasl_mechanism", text::value(mechanism));
                    self.note("sasl_initial_response", secret(cursor.rest(), cx));
                }
            }
            SASL_CONTINUE => self.note("sasl_response", secret(body, cx)),
            _ => self.note("password", secret(body.strip_suffix(b"\0").unwrap_or(body), cx)),
        }
    }
}

/// What only those may see who asked for secrets.
pub(super) fn secret(bytes: &[u8], cx: &Cx<'_>) -> Value {
    if cx.secrets() { text::value(bytes) } else { text::HIDDEN.into() }
}

fn startup_message(body: &[u8], version: u32, total: usize, cx: &Cx<'_>) -> Result<Message, Malformed> {
    let mut cursor = Cursor::new(body);
    let (mut user, mut database) = (&b""[..], None);
    let mut parameters = Vec::new();
    loop {
        let name = cursor.until(0)?;
        if name.is_empty() {
            break;
        }
        let value = cursor.until(0)?;
        match name {
            b"user" => user = value,
            b"database" => database = Some(value),
            _ => {}
        }
        if cx.detail() {
            parameters.push((Text::Owned(text::string(name)), text::value(value)));
        }
    }
    let target = format!("{}/{}", text::printable(user), text::printable(database.unwrap_or(user)));
    let mut message = Message::request(Direction::ToServer, "Startup", target, cx);
    message.bytes = total as u64;
    if cx.detail() {
        let version = format!("{}.{}", version >> 16, version & 0xffff);
        message.detail = fields! { "protocol_version" => version, "parameters" => parameters };
    }
    Ok(message)
}
