//! Descriptors that a server tells of itself: `grpc.reflection.v1` and `v1alpha`
//! (<https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>).
//!
//! They count for the connection on which they were told, as tools ask before they call: whatever else is dissected, and in
//! which order, the rows are the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;

use super::Descriptors;
use crate::dissect::Cursor;
use crate::dissect::http::content;

/// The most bytes of one stream's answers that are kept.
pub(in crate::dissect) const MAX_REFLECTION: usize = 1 << 20;
/// The most bytes of descriptors that are learnt at a time, on all connections together; in memory they are many times that.
const MAX_LEARNT: usize = 2 << 20;
/// The most files that wait for those that they import.
const MAX_WAITING: usize = 512;

/// The fields of a `ServerReflectionResponse` and of its `FileDescriptorResponse`: a file, in bytes.
const FILE_DESCRIPTOR_RESPONSE: u64 = 4;
const FILE_DESCRIPTOR_PROTO: u64 = 1;

/// How the paths start where a server tells its descriptors, whatever the version.
pub(in crate::dissect) const REFLECTION: &[u8] = b"/grpc.reflection.v1";

/// What one connection told.
pub(in crate::dissect) struct Learnt {
    pub descriptors: Descriptors,
    /// Files whose imports have not come yet.
    waiting: Vec<FileDescriptorProto>,
    bytes: usize,
    /// The same, of all connections.
    total: Arc<AtomicUsize>,
}

impl Learnt {
    /// Nothing yet, on one of the connections that share a limit with those `given`.
    pub fn new(given: &Descriptors) -> Self {
        Self { descriptors: Descriptors::default(), waiting: Vec::new(), bytes: 0, total: Arc::clone(given.learnt()) }
    }

    /// Takes the answers that stand whole in `body`, as [`messages`](super::messages) has it; how many bytes they were.
    pub fn take(&mut self, body: &[u8], coding: &[u8]) -> usize {
        let mut cursor = Cursor::new(body);
        let mut taken = 0;
        while let (Ok(flag), Ok(len)) = (cursor.u8(), cursor.u32()) {
            let Ok(message) = cursor.take(len as usize) else { break };
            taken = cursor.position();
            if flag & 1 == 0 {
                self.answer(message);
            } else if let Some(decoded) = content::decode(coding, message, MAX_REFLECTION) {
                self.answer(&decoded.bytes);
            }
        }
        taken
    }

    fn answer(&mut self, message: &[u8]) {
        for response in parts(message, FILE_DESCRIPTOR_RESPONSE) {
            for file in parts(response, FILE_DESCRIPTOR_PROTO) {
                self.file(file);
            }
        }
        // An import comes before or after, so each new file may be what others wait for.
        while let Some(at) = self.waiting.iter().position(|file| self.is_complete(file)) {
            let file = self.waiting.swap_remove(at);
            self.descriptors.add_file(file);
        }
    }

    fn file(&mut self, bytes: &[u8]) {
        if self.waiting.len() >= MAX_WAITING || self.total.load(Ordering::Relaxed) + bytes.len() > MAX_LEARNT {
            return;
        }
        let Ok(file) = FileDescriptorProto::decode(bytes) else { return };
        if self.descriptors.has_file(file.name()) || self.waiting.iter().any(|waits| waits.name() == file.name()) {
            return;
        }
        self.total.fetch_add(bytes.len(), Ordering::Relaxed);
        self.bytes += bytes.len();
        self.waiting.push(file);
    }

    fn is_complete(&self, file: &FileDescriptorProto) -> bool {
        file.dependency.iter().all(|name| self.descriptors.has_file(name))
    }
}

impl Drop for Learnt {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The length-delimited fields of that number; those behind a fault are left out.
fn parts(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    let mut cursor = Cursor::new(message);
    std::iter::from_fn(move || super::wire::field(&mut cursor)).filter_map(move |(found, value)| match value {
        super::wire::Raw::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, ServiceDescriptorProto};

    use super::super::Method;
    use super::*;

    /// An answer that tells one file, framed.
    fn answer(file: &FileDescriptorProto) -> Vec<u8> {
        let field = |number: u8, bytes: &[u8]| {
            let mut field = vec![number << 3 | 2];
            prost_reflect::prost::encoding::encode_varint(bytes.len() as u64, &mut field);
            [field, bytes.to_vec()].concat()
        };
        let message = field(4, &field(1, &file.encode_to_vec()));
        [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
    }

    fn file(name: &str, imports: &[&str], padding: usize) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.to_owned()),
            syntax: Some("proto3".to_owned()),
            dependency: imports.iter().map(|&import| import.to_owned()).collect(),
            message_type: vec![DescriptorProto {
                name: Some(format!("M{}", name.len())),
                field: vec![FieldDescriptorProto {
                    name: Some("x".repeat(padding + 1)),
                    number: Some(1),
                    r#type: Some(9),
                    label: Some(1),
                    ..FieldDescriptorProto::default()
                }],
                ..DescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        }
    }

    #[test]
    fn imports_may_come_later_and_answers_in_pieces() {
        let shared = file("shared", &[], 0);
        let method = prost_reflect::prost_types::MethodDescriptorProto {
            name: Some("Get".to_owned()),
            input_type: Some(".M6".to_owned()),
            output_type: Some(".M7".to_owned()),
            ..Default::default()
        };
        let service =
            ServiceDescriptorProto { name: Some("Shop".to_owned()), method: vec![method], ..Default::default() };
        let whole = FileDescriptorProto { service: vec![service], ..file("service", &["shared"], 0) };
        let given = Descriptors::default();
        let mut learnt = Learnt::new(&given);
        let bytes = [answer(&whole), answer(&shared)].concat();
        let (first, rest) = bytes.split_at(bytes.len() - 3);
        let known = |learnt: &Learnt| Method::find("/Shop/Get", &given, Some(&learnt.descriptors)).kind(true).cloned();
        let taken = learnt.take(first, b"");
        assert!(known(&learnt).is_none());
        assert_eq!(learnt.take(&[first.get(taken..).unwrap(), rest].concat(), b""), bytes.len() - taken);
        assert_eq!(known(&learnt).unwrap().name(), "M7");
    }

    #[test]
    fn all_connections_share_a_limit() {
        let given = Descriptors::default();
        let large = answer(&file("large", &[], MAX_LEARNT * 2 / 3));
        let mut first = Learnt::new(&given);
        first.take(&large, b"");
        let mut second = Learnt::new(&given);
        second.take(&large, b"");
        assert_eq!([&first, &second].map(|learnt| learnt.descriptors.has_file("large")), [true, false]);
        drop(first);
        second.take(&large, b"");
        assert!(second.descriptors.has_file("large"));
    }
}
