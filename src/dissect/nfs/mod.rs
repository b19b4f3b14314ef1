//! NFS 3 (RFC 1813) and 4 (RFC 7530, 8881, 7862), and MOUNT, over ONC RPC (RFC 5531) on TCP and UDP.
//!
//! A reply carries the transaction id of its call. A `COMPOUND` of version 4 is one row, named by the operation that it is made
//! for. A server names files by handles: the row shows the path, as far as the connection showed how each handle was found.
//!
//! Not parsed: attributes, directory listings and data; version 2; calls back to a client; other programs of RPC; what
//! Kerberos protects (`krb5i`, `krb5p`), whose rows have procedure and status of RPC alone.

mod rpc;
mod v3;
mod v4;
mod xdr;

use std::collections::HashMap;

use super::{
    Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Recover, Role, Short, Transport, Verdict,
    text,
};
use crate::entry::{Direction, Text, Value};
use crate::fields;

use self::rpc::{Call, Head, Reply};
use self::v3::Procedure;
use self::v4::Compound;
use self::xdr::Read;

pub static PROTOCOL: Protocol = Protocol {
    name: "nfs",
    title: "NFS",
    transport: Transport::Both,
    ports: &[2049, 20048],
    probe,
    new: || Box::new(Nfs::default()),
    repeats: true,
    spec: "https://www.rfc-editor.org/rfc/rfc8881",
};

/// Program numbers.
const NFS: u32 = 100_003;
const MOUNT: u32 = 100_005;
/// Set in the length of a record's last fragment (RFC 5531 section 11).
const LAST: u32 = 1 << 31;
/// The longest fragment: servers transfer at most 1 MiB at once.
const MAX_FRAGMENT: usize = 32 << 20;
/// The shortest message: a reply that denies.
const MIN_MESSAGE: usize = 20;
/// The most of a message that is looked at.
const WINDOW: usize = 4096;
/// The most calls whose replies are awaited, and the most handles whose paths are known.
const MAX_CALLS: usize = 1024;
const MAX_PATHS: usize = 4096;
/// The longest path that is known.
const MAX_PATH: usize = 1024;
/// Bit in the ids that pair messages, so that they are never the 0 that means "in order".
const ID: u64 = 1 << 32;

/// The procedure of that number.
fn procedure(program: u32, version: u32, number: u32) -> Option<&'static Procedure> {
    const COMPOUND: &Procedure = &Procedure("COMPOUND", "", "");
    match (program, version, number) {
        (NFS, 3, _) => v3::NFS.get(number as usize),
        (NFS, 4, 0) => v3::NFS.first(),
        (NFS, 4, 1) => Some(COMPOUND),
        (MOUNT, 1..=3, _) => v3::MOUNT.get(number as usize),
        _ => None,
    }
}

/// The length of a fragment, and whether it is the last one of its record.
fn mark(cursor: &mut Cursor<'_>) -> Result<(usize, bool), Malformed> {
    let mark = cursor.u32()?;
    let length = (mark & !LAST) as usize;
    if length <= MAX_FRAGMENT { Ok((length, mark & LAST != 0)) } else { Err(Malformed("a fragment that is too long")) }
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let mut cursor = Cursor::new(probe.data);
    let stream = probe.transport == Transport::Tcp;
    if stream {
        match mark(&mut cursor) {
            Ok((length, _)) if length >= MIN_MESSAGE => {}
            Err(_) if probe.data.len() < 4 && matches!(probe.data, [] | [0 | 0x80, ..]) => return Verdict::More,
            _ => return Verdict::No,
        }
    }
    let xid_and_kind = cursor.rest().get(4..8);
    match (Head::read(&mut cursor), probe.direction) {
        (Ok(Ok(Head::Call(call))), Direction::ToServer)
            if procedure(call.program, call.version, call.procedure).is_some() =>
        {
            Verdict::Yes
        }
        (Ok(Ok(Head::Reply(_))), Direction::ToClient) => Verdict::Maybe,
        (Err(Short), _) if stream && xid_and_kind.is_none_or(|kind| matches!(kind, [0, 0, 0, 0 | 1])) => Verdict::More,
        _ => Verdict::No,
    }
}

/// What is known of a call until it is answered.
#[derive(Debug)]
struct Asked {
    procedure: &'static Procedure,
    version: u32,
    /// The path of what it makes or looks up.
    path: String,
    is_plain: bool,
}

/// One connection, or the datagrams between two ports.
#[derive(Default)]
struct Nfs {
    calls: HashMap<u32, Asked>,
    /// Paths by handle.
    paths: HashMap<Vec<u8>, String>,
    /// What comes next, each way, goes on with a record whose beginning was read.
    inside: [bool; 2],
}

impl Nfs {
    fn call(
        &mut self,
        call: &Call<'_>,
        cursor: &mut Cursor<'_>,
        message: &mut Message,
        cx: &Cx<'_>,
    ) -> Result<(), Malformed> {
        let procedure = procedure(call.program, call.version, call.procedure)
            .ok_or(Malformed("a program or procedure that is not known"))?;
        let mut operation = procedure.0;
        let mut detail = Vec::new();
        if call.is_plain() && operation == "COMPOUND" {
            let compound = Compound::arguments(cursor, cx.detail());
            if !compound.main.is_empty() {
                operation = compound.main;
            }
            message.target = self.path(compound.from, &compound.names, operation == "RENAME");
            detail = v4::detail(compound);
        } else if call.is_plain() {
            let mut read = Read::new(cx.detail());
            // What is cut off is missing in the row.
            let _ = read.layout(procedure.1, cursor);
            message.target = self.path(read.handles.first().copied(), &read.names, operation == "RENAME");
            detail = read.fields;
        }
        message.operation = Text::Borrowed(operation);
        if cx.detail() {
            let Value::Map(mut fields) = (fields! {
                "xid" => format!("{:08x}", call.xid), "program" => call.program, "version" => call.version,
                "procedure" => procedure.0, "caller" => call.caller(),
            }) else {
                return Ok(());
            };
            fields.extend(detail);
            message.detail = Value::Map(fields);
        }
        if self.calls.len() < MAX_CALLS || self.calls.contains_key(&call.xid) {
            let asked =
                Asked { procedure, version: call.version, path: message.target.clone(), is_plain: call.is_plain() };
            self.calls.insert(call.xid, asked);
        }
        Ok(())
    }

    fn reply(&mut self, reply: &Reply, cursor: &mut Cursor<'_>, message: &mut Message, cx: &Cx<'_>) {
        let asked = self.calls.remove(&reply.xid);
        message.status = Text::Borrowed("ok");
        let mut detail = vec![("xid".into(), format!("{:08x}", reply.xid).into())];
        if let Some(refused) = reply.refused {
            (message.status, message.failed) = (Text::Borrowed(refused), true);
        } else if let Some(asked) = asked.filter(|asked| asked.is_plain && asked.procedure.0 != "NULL") {
            let Asked { procedure, version, path, .. } = asked;
            let mut handle = None;
            // What only lists has no status.
            let number =
                if matches!(procedure.0, "DUMP" | "UMNT" | "UMNTALL" | "EXPORT") { Ok(0) } else { cursor.u32() };
            if let Ok(number @ 1..) = number {
                (message.status, message.failed) = (status(number, version), true);
            }
            if procedure.0 == "COMPOUND" {
                let compound = Compound::results(cursor, cx.detail());
                handle = compound.to;
                detail.extend(v4::detail(compound));
            } else if number == Ok(0) {
                let mut read = Read::new(cx.detail());
                let _ = read.layout(procedure.2, cursor);
                handle = read.handles.first().copied();
                detail.extend(read.fields);
            }
            if let Some(handle) = handle
                && !path.is_empty()
                && (self.paths.len() < MAX_PATHS || self.paths.contains_key(handle))
            {
                self.paths.insert(handle.to_vec(), path);
            }
        }
        if cx.detail() {
            message.detail = Value::Map(detail);
        }
    }

    /// The path of the names below a handle, as far as it is known. What is renamed has its two names.
    fn path(&self, from: Option<&[u8]>, names: &[&[u8]], is_rename: bool) -> String {
        let mut path = from.and_then(|handle| self.paths.get(handle)).cloned().unwrap_or_default();
        for (at, name) in names.iter().enumerate() {
            if at == 1 && is_rename {
                path.push_str(" -> ");
            } else if !path.is_empty() && !path.ends_with('/') {
                path.push('/');
            }
            path.push_str(&text::printable(name));
        }
        if path.len() > MAX_PATH {
            path.truncate(path.floor_char_boundary(MAX_PATH));
        }
        path
    }
}

/// The name of what went wrong.
fn status(number: u32, version: u32) -> Text {
    let name = if version == 4 { v4::status(number).or_else(|| v3::status(number)) } else { v3::status(number) };
    let prefix = if version == 4 { "NFS4ERR_" } else { "NFS3ERR_" };
    name.map_or_else(|| number.to_string(), |name| format!("{prefix}{name}")).into()
}

impl Dissector for Nfs {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let stream = cx.transport() == Transport::Tcp;
        let mut length = bytes.len();
        if stream {
            if bytes.len() < 4 {
                return Ok(Progress::Need(4 - bytes.len()));
            }
            let (fragment, is_last) = mark(&mut cursor)?;
            length = 4 + fragment;
            let inside = direction.of(self.inside.each_mut());
            if *inside {
                *inside = !is_last;
                return Ok(Progress::Consumed(length));
            }
            let wanted = length.min(WINDOW);
            if bytes.len() < wanted {
                return Ok(Progress::Need(wanted - bytes.len()));
            }
            *inside = !is_last;
        }
        let head = Head::read(&mut cursor)??;
        // What lies behind this message is another one.
        let mut rest = Cursor::new(cursor.rest().get(..length - cursor.position()).unwrap_or(cursor.rest()));
        let mut message = Message::new(Role::Request, direction, cx);
        message.bytes = length as u64;
        match head {
            Head::Call(call) if direction == Direction::ToServer => {
                message.id = ID | u64::from(call.xid);
                self.call(&call, &mut rest, &mut message, cx)?;
            }
            Head::Reply(reply) if direction == Direction::ToClient => {
                (message.role, message.id) = (Role::Response, ID | u64::from(reply.xid));
                self.reply(&reply, &mut rest, &mut message, cx);
            }
            // A server calls back on the client's connection (RFC 8881 section 2.10.3.1).
            _ => return Ok(Progress::Consumed(length)),
        }
        cx.emit(message);
        Ok(Progress::Consumed(length))
    }

    fn gap(&mut self, direction: Direction, _len: u64, _cx: &mut Cx<'_>) -> Recover {
        *direction.of(self.inside.each_mut()) = false;
        Recover::Resync
    }
}
