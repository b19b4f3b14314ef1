//! The login: the server's greeting, the client's answer to it, and what it asks for.

use super::commands::Reply;
use super::compression::Framing;
use super::packet::{self, Header};
use super::{Awaited, Cursor, Cx, Malformed, Message, Mysql, Short, Switch, Text, Value, text};
use crate::entry::Direction;
use crate::fields;

/// What client and server can do.
pub(super) const CONNECT_WITH_DB: u64 = 1 << 3;
pub(super) const COMPRESS: u64 = 1 << 5;
pub(super) const PROTOCOL_41: u64 = 1 << 9;
pub(super) const SSL: u64 = 1 << 11;
const SECURE_CONNECTION: u64 = 1 << 15;
pub(super) const PLUGIN_AUTH: u64 = 1 << 19;
const CONNECT_ATTRIBUTES: u64 = 1 << 20;
const LENENC_AUTH: u64 = 1 << 21;
pub(super) const SESSION_TRACK: u64 = 1 << 23;
pub(super) const OPTIONAL_METADATA: u64 = 1 << 25;
pub(super) const ZSTD: u64 = 1 << 26;
pub(super) const QUERY_ATTRIBUTES: u64 = 1 << 27;
/// MariaDB's own, which it keeps where MySQL has zeros, if this bit of MySQL's is not set.
const IS_MYSQL: u64 = 1;
pub(super) const CACHE_METADATA: u64 = 1 << 36;

/// Names of capabilities, by bit.
const CAPABILITIES: &[(u32, &str)] = &[
    (0, "long_password"),
    (1, "found_rows"),
    (2, "long_flag"),
    (3, "connect_with_db"),
    (4, "no_schema"),
    (5, "compress"),
    (6, "odbc"),
    (7, "local_files"),
    (8, "ignore_space"),
    (9, "protocol_41"),
    (10, "interactive"),
    (11, "ssl"),
    (12, "ignore_sigpipe"),
    (13, "transactions"),
    (15, "secure_connection"),
    (16, "multi_statements"),
    (17, "multi_results"),
    (18, "ps_multi_results"),
    (19, "plugin_auth"),
    (20, "connect_attrs"),
    (21, "plugin_auth_lenenc_client_data"),
    (22, "can_handle_expired_passwords"),
    (23, "session_track"),
    (24, "deprecate_eof"),
    (25, "optional_resultset_metadata"),
    (26, "zstd_compression_algorithm"),
    (27, "query_attributes"),
    (28, "multi_factor_authentication"),
    (29, "capability_extension"),
    (30, "ssl_verify_server_cert"),
    (31, "remember_options"),
    (32, "mariadb_progress"),
    (33, "mariadb_com_multi"),
    (34, "mariadb_stmt_bulk_operations"),
    (35, "mariadb_extended_metadata"),
    (36, "mariadb_cache_metadata"),
    (37, "mariadb_bulk_unit_results"),
];

/// The length of a request for TLS: a login up to the name of the user.
const SSL_REQUEST: usize = 32;
/// The most attributes of a connection that are kept.
const MAX_ATTRIBUTES: usize = 64;

fn names(capabilities: u64) -> Value {
    let set = CAPABILITIES.iter().filter(|(bit, _)| capabilities >> bit & 1 != 0);
    set.map(|(_, name)| Value::from(*name)).collect::<Vec<_>>().into()
}

/// A server's greeting.
pub(super) struct Greeting<'a> {
    pub(super) version: &'a [u8],
    connection: u32,
    capabilities: u64,
    character_set: u8,
    status: u16,
    plugin: &'a [u8],
}

/// A greeting of protocol version 10.
pub(super) fn greeting(payload: &[u8]) -> Result<Greeting<'_>, Short> {
    let mut cursor = Cursor::new(payload);
    if cursor.u8()? != 10 {
        return Err(Short);
    }
    let version = cursor.until(0)?;
    let connection = cursor.u32_le()?;
    cursor.skip(8)?;
    if cursor.u8()? != 0 {
        return Err(Short);
    }
    let mut greeting = Greeting {
        version,
        connection,
        capabilities: cursor.u16_le()?.into(),
        character_set: 0,
        status: 0,
        plugin: &[],
    };
    if cursor.is_empty() {
        return Ok(greeting);
    }
    greeting.character_set = cursor.u8()?;
    greeting.status = cursor.u16_le()?;
    greeting.capabilities |= u64::from(cursor.u16_le()?) << 16;
    let scramble = usize::from(cursor.u8()?);
    cursor.skip(6)?;
    let extended = cursor.u32_le()?;
    if greeting.capabilities & IS_MYSQL == 0 {
        greeting.capabilities |= u64::from(extended) << 32;
    }
    if greeting.capabilities & PLUGIN_AUTH != 0 {
        cursor.skip(scramble.saturating_sub(8).max(13).min(cursor.remaining()))?;
        let plugin = cursor.rest();
        greeting.plugin = plugin.strip_suffix(b"\0").unwrap_or(plugin);
    }
    Ok(greeting)
}

impl Mysql {
    /// What the server says before the client has said anything.
    pub(super) fn greeted(&mut self, header: Header, payload: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        if header.sequence == 0
            && let Ok(greeting) = greeting(payload)
        {
            self.logged_in = false;
            self.framing = Framing::Unknown;
            self.offered = Some(greeting.capabilities);
            if cx.detail() {
                self.greeting = fields! {
                    "protocol_version" => 10u32,
                    "server_version" => text::value(greeting.version),
                    "connection_id" => greeting.connection,
                    "capability_flags" => names(greeting.capabilities),
                    "character_set" => greeting.character_set,
                    "status_flags" => greeting.status,
                    "auth_plugin_name" => text::value(greeting.plugin),
                };
            }
        } else if payload.first() == Some(&packet::ERR) && !self.logged_in && self.offered.is_none() && cx.start() {
            // The server does not want the client, and says so without being asked.
            let (code, ..) = packet::error(payload)?;
            let mut message = Message::one_way(Direction::ToClient, "Login", String::new(), cx);
            message.status = Text::Owned(code.to_string());
            message.failed = true;
            message.bytes = header.total() as u64;
            if cx.detail() {
                message.detail = super::answers::complaint(payload);
            }
            cx.emit(message);
        } else if !self.logged_in && cx.start() && self.offered.is_none() {
            return Err(Malformed("neither a greeting nor an error"));
        }
        Ok(())
    }

    /// The client's answer to the greeting, or its wish for TLS.
    pub(super) fn login(
        &mut self,
        header: Header,
        payload: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Option<Switch>, Malformed> {
        if !cx.start() && !is_login(payload) {
            // What a client that was met in the middle of a login, or of a file, has to say.
            return Ok(None);
        }
        let low = u64::from(Cursor::new(payload).u16_le()?);
        if low & PROTOCOL_41 != 0 && low & SSL != 0 && header.len == SSL_REQUEST {
            return Ok(Some(Switch::Detect));
        }
        let login = if low & PROTOCOL_41 != 0 { login(payload) } else { old_login(payload) };
        let login = login.map_err(|_| Malformed("no login"))?;
        self.logged_in = true;
        self.framing = Framing::Unknown;
        self.capabilities = Some(login.capabilities & self.offered.unwrap_or(u64::MAX));
        let mut message = Message::request(Direction::ToServer, "Login", text::string(login.user), cx);
        message.bytes = header.total() as u64;
        if cx.detail() {
            let response = if cx.secrets() { text::hex(login.response).into() } else { Value::from(text::HIDDEN) };
            let mut fields = vec![
                ("capability_flags".into(), names(login.capabilities)),
                ("max_packet_size".into(), login.max_packet.into()),
                ("character_set".into(), login.character_set.into()),
                ("username".into(), text::value(login.user)),
                ("auth_response".into(), response),
            ];
            for (name, value) in [("database", login.database), ("client_plugin_name", login.plugin)] {
                if let Some(value) = value {
                    fields.push((name.into(), text::value(value)));
                }
            }
            if !login.attributes.is_empty() {
                let shown = |(name, value): &(&[u8], &[u8])| (Text::Owned(text::string(name)), text::value(value));
                let attributes: Vec<_> = login.attributes.iter().map(shown).collect();
                fields.push(("connect_attrs".into(), attributes.into()));
            }
            message.detail = Value::Map(fields);
        }
        let sequence = header.sequence.wrapping_add(1);
        self.await_answer(Awaited { message, reply: Reply::Login, sequence, statement: None, sql: None }, cx);
        Ok(None)
    }

    /// The login is under way: how what follows is framed is going to be known.
    pub(super) fn is_logging_in(&self) -> bool {
        !self.logged_in && self.offered.is_some()
            || self.awaited.front().is_some_and(|awaited| awaited.reply == Reply::Login && self.capabilities.is_some())
    }

    /// The client has sent a login after which it wants to compress.
    pub(super) fn wants_compression(&self) -> bool {
        self.logged_in && self.has(COMPRESS | ZSTD)
    }
}

/// A client's login.
struct Login<'a> {
    capabilities: u64,
    max_packet: u32,
    character_set: u8,
    user: &'a [u8],
    response: &'a [u8],
    database: Option<&'a [u8]>,
    plugin: Option<&'a [u8]>,
    attributes: Vec<(&'a [u8], &'a [u8])>,
}

/// True if a payload has the form of a login; of one that is not whole, the beginning.
pub(super) fn is_login(payload: &[u8]) -> bool {
    let mut cursor = Cursor::new(payload);
    let Ok(capabilities) = cursor.u32_le() else { return false };
    let fixed = cursor.skip(5).is_ok() && cursor.take(19).is_ok_and(|zeros| zeros.iter().all(|byte| *byte == 0));
    u64::from(capabilities) & PROTOCOL_41 != 0 && fixed
}

fn login(payload: &[u8]) -> Result<Login<'_>, Short> {
    let mut cursor = Cursor::new(payload);
    let mut capabilities = u64::from(cursor.u32_le()?);
    let (max_packet, character_set) = (cursor.u32_le()?, cursor.u8()?);
    cursor.skip(19)?;
    let extended = u64::from(cursor.u32_le()?);
    if capabilities & IS_MYSQL == 0 {
        capabilities |= extended << 32;
    }
    let user = cursor.until(0)?;
    let mut login = Login {
        capabilities,
        max_packet,
        character_set,
        user,
        response: &[],
        database: None,
        plugin: None,
        attributes: Vec::new(),
    };
    // What is left is told to the last byte by few clients; what there is is taken.
    let _ = login.rest(&mut cursor);
    Ok(login)
}

impl<'a> Login<'a> {
    fn rest(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Short> {
        let has = |capability| self.capabilities & capability != 0;
        self.response = if has(LENENC_AUTH) {
            packet::bytes(cursor)?
        } else if has(SECURE_CONNECTION) {
            let len = usize::from(cursor.u8()?);
            cursor.take(len)?
        } else {
            cursor.until(0)?
        };
        if has(CONNECT_WITH_DB) {
            self.database = Some(cursor.until(0)?);
        }
        if has(PLUGIN_AUTH) {
            self.plugin = Some(cursor.until(0)?);
        }
        if has(CONNECT_ATTRIBUTES) {
            let mut attributes = Cursor::new(packet::bytes(cursor)?);
            while !attributes.is_empty() && self.attributes.len() < MAX_ATTRIBUTES {
                self.attributes.push((packet::bytes(&mut attributes)?, packet::bytes(&mut attributes)?));
            }
        }
        Ok(())
    }
}

/// As it was before version 4.1.
fn old_login(payload: &[u8]) -> Result<Login<'_>, Short> {
    let mut cursor = Cursor::new(payload);
    let (capabilities, max_packet) = (u64::from(cursor.u16_le()?), cursor.u24_le()?);
    let rest = cursor.rest();
    let user = cursor.until(0).unwrap_or(rest);
    let response = cursor.until(0).unwrap_or_default();
    let database = cursor.until(0).ok().filter(|_| capabilities & CONNECT_WITH_DB != 0);
    Ok(Login {
        capabilities,
        max_packet,
        character_set: 0,
        user,
        response,
        database,
        plugin: None,
        attributes: Vec::new(),
    })
}
