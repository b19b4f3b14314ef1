//! What services and messages there are, as protobuf's compilers describe them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use prost_reflect::prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::json;
use crate::entry::Value;

/// The files that protobuf brings along, of which every compiler has its own copy.
const WELL_KNOWN: &str = "google/protobuf/";

/// Services and messages by name; cheap to clone.
#[derive(Clone)]
pub struct Descriptors {
    pool: DescriptorPool,
    given: bool,
    /// How many bytes of descriptors connections have told, all together.
    learnt: Arc<AtomicUsize>,
}

impl Default for Descriptors {
    /// None but the well-known types.
    fn default() -> Self {
        Self { pool: DescriptorPool::global(), given: false, learnt: Arc::default() }
    }
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pool.services()).finish()
    }
}

impl Descriptors {
    /// Takes a `FileDescriptorSet`, as `protoc --include_imports -o`, `buf build -o` and `grpcurl -protoset-out` write it.
    ///
    /// # Errors
    /// In words, if the bytes are none, if a file is missing that another imports, or if files contradict each other.
    pub fn add(&mut self, set: &[u8]) -> Result<(), String> {
        let set = FileDescriptorSet::decode(set).map_err(|error| format!("no FileDescriptorSet: {error}"))?;
        let described: fn(&FileDescriptorProto) -> _ =
            |file| (file.message_type.clone(), file.enum_type.clone(), file.service.clone(), file.extension.clone());
        for file in set.file.iter().filter(|file| !file.name().starts_with(WELL_KNOWN)) {
            let known = self.pool.get_file_by_name(file.name());
            if known.is_some_and(|known| described(known.file_descriptor_proto()) != described(file)) {
                return Err(format!("there are two different files {}", file.name()));
            }
        }
        self.pool.add_file_descriptor_set(set).map_err(|error| error.to_string())?;
        self.given = true;
        Ok(())
    }

    /// True if any were given: that a method is not among them is worth telling.
    pub(super) fn is_given(&self) -> bool {
        self.given
    }

    /// The counter of what connections have told.
    pub(super) fn learnt(&self) -> &Arc<AtomicUsize> {
        &self.learnt
    }

    /// True if there is such a file.
    pub(super) fn has_file(&self, name: &str) -> bool {
        self.pool.get_file_by_name(name).is_some()
    }

    /// Takes one file whose imports are there. False if it contradicts the others.
    pub(super) fn add_file(&mut self, file: FileDescriptorProto) -> bool {
        self.pool.add_file_descriptor_proto(file).is_ok()
    }

    /// The method that a path names: `/package.Service/Method`.
    fn method(&self, path: &str) -> Option<[Kind; 2]> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let service = self.pool.get_service_by_name(service)?;
        let method = service.methods().find(|known| known.name() == method)?;
        Some([Kind(method.input()), Kind(method.output())])
    }
}

/// What is known of the method that is called.
#[derive(Clone, Debug, Default)]
pub(in crate::dissect) enum Method {
    /// Nothing, and nobody asked.
    #[default]
    Unknown,
    /// It is not in the descriptors that were given.
    NotGiven,
    /// The types of its requests and responses.
    Known([Kind; 2]),
}

impl Method {
    /// Looks in all descriptors that there are.
    pub fn find(path: &str, given: &Descriptors, learnt: Option<&Descriptors>) -> Self {
        match given.method(path).or_else(|| learnt?.method(path)) {
            Some(kinds) => Self::Known(kinds),
            None if given.is_given() => Self::NotGiven,
            None => Self::Unknown,
        }
    }

    /// The type of one half's messages.
    pub fn kind(&self, response: bool) -> Option<&Kind> {
        match self {
            Self::Known(kinds) => kinds.get(usize::from(response)),
            _ => None,
        }
    }
}

/// A message's type.
#[derive(Clone, Debug)]
pub(in crate::dissect) struct Kind(MessageDescriptor);

impl Kind {
    /// `package.Message`.
    pub fn name(&self) -> String {
        self.0.full_name().to_owned()
    }

    /// The message's fields by name; `None` if it is not of this type. `left` values may still be made.
    pub fn decode(&self, message: &[u8], left: &mut usize) -> Option<Value> {
        Some(json::message(&DynamicMessage::decode(self.0.clone(), message).ok()?, left))
    }
}
