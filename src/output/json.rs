//! `-o json`: one object a line. Serialized straight into a reused buffer: no tree in between.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::entry::{Endpoint, Entry, Half, Hop, Name, Timestamp, Value};
use crate::pipeline::Sink;

/// JSON lines.
pub struct Json<W> {
    out: W,
    buffer: Vec<u8>,
}

/// Bytes gathered before they are written; a live run flushes at each tick as well.
const FLUSH_AT: usize = 64 * 1024;

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, buffer: Vec::with_capacity(FLUSH_AT * 2) }
    }
}

impl<W: Write> Sink for Json<W> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        serde_json::to_writer(&mut self.buffer, &Row(entry))?;
        self.buffer.push(b'\n');
        if self.buffer.len() >= FLUSH_AT { self.tick() } else { Ok(()) }
    }

    fn tick(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.tick()
    }
}

/// An entry as JSON and YAML show it.
pub(super) struct Row<'a>(pub &'a Entry);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &entry.id)?;
        map.serialize_entry("time", &At(entry.time))?;
        map.serialize_entry("protocol", entry.protocol)?;
        map.serialize_entry("src", &End(&entry.src, None))?;
        map.serialize_entry("dst", &End(&entry.dst, entry.backend.as_ref()))?;
        map.serialize_entry("operation", &entry.operation)?;
        map.serialize_entry("target", &entry.target)?;
        map.serialize_entry("status", &entry.status)?;
        map.serialize_entry("failed", &entry.failed)?;
        map.serialize_entry("latency_ms", &entry.latency.map(milliseconds))?;
        if let Some(decrypted) = entry.decrypted {
            map.serialize_entry("decrypted", decrypted)?;
        }
        if !entry.hops.is_empty() {
            map.serialize_entry("hops", &entry.hops.iter().map(Leg).collect::<Vec<_>>())?;
        }
        map.serialize_entry("request", &entry.request.as_ref().map(Message))?;
        map.serialize_entry("response", &entry.response.as_ref().map(Message))?;
        map.serialize_entry("warnings", &entry.warnings)?;
        map.end()
    }
}

/// Milliseconds with three decimals.
#[allow(clippy::cast_precision_loss, reason = "microseconds of any capture fit a double")]
fn milliseconds(nanos: i64) -> f64 {
    (nanos / 1000) as f64 / 1000.0
}

/// A plain leg beside a sidecar.
struct Leg<'a>(&'a Hop);

impl Serialize for Leg<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("src", &End(&self.0.src, None))?;
        map.serialize_entry("dst", &End(&self.0.dst, None))?;
        map.serialize_entry("latency_ms", &self.0.latency.map(milliseconds))?;
        map.end()
    }
}

struct At(Timestamp);

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// An address, the name that it resolves to, and for a service the pod that answered.
struct End<'a>(&'a Endpoint, Option<&'a Endpoint>);

impl Serialize for End<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ip", &self.0.ip)?;
        map.serialize_entry("port", &self.0.port)?;
        if let Some(name) = self.0.name.as_deref() {
            let Name { kind, namespace, name, workload, node } = name;
            map.serialize_entry("kind", kind)?;
            if !namespace.is_empty() {
                map.serialize_entry("namespace", namespace)?;
            }
            map.serialize_entry("name", name)?;
            for (key, value) in [("workload", workload), ("node", node)] {
                if let Some(value) = value {
                    map.serialize_entry(key, value)?;
                }
            }
        }
        if let Some(backend) = self.1 {
            map.serialize_entry("backend", &End(backend, None))?;
        }
        map.end()
    }
}

/// One half: its place in the capture, then its decoded fields beside them.
struct Message<'a>(&'a Half);

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let half = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &At(half.time))?;
        map.serialize_entry("packet", &half.packet)?;
        map.serialize_entry("bytes", &half.bytes)?;
        match &half.detail {
            Value::Null => {}
            Value::Map(fields) => {
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
            }
            other => map.serialize_entry("value", other)?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn one_object_a_line_in_the_order_that_people_read() {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        json.entry(&samples::http()).unwrap();
        json.entry(&samples::unanswered()).unwrap();
        json.finish().unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
