//! `-o yaml`: one document an entry, every decoded field and body, for reading.

use std::io::{self, Write};

use super::json::Row;
use crate::entry::Entry;
use crate::pipeline::Sink;

/// YAML documents.
pub struct Yaml<W> {
    out: W,
}

impl<W: Write> Yaml<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write> Sink for Yaml<W> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let text = serde_saphyr::to_string(&Row(entry)).map_err(io::Error::other)?;
        write!(self.out, "---\n{text}")
    }

    fn tick(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn documents_for_people() {
        let mut out = Vec::new();
        let mut yaml = Yaml::new(&mut out);
        yaml.entry(&samples::http()).unwrap();
        yaml.finish().unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
