//! Capture filters: pcap-filter(7) text → classic BPF, by libpcap's own compiler.

/// A compiled capture filter, as an agent takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The expression as the user wrote it.
    pub text: String,
    /// `N,code jt jf k,…`: the number of instructions, then each one's four numbers.
    pub program: String,
}

/// What libpcap says of an expression that it does not understand.
#[derive(Debug, thiserror::Error)]
#[error("cannot compile the capture filter {text:?}: {cause}")]
pub struct Invalid {
    text: String,
    cause: pcap::Error,
}

impl Filter {
    /// Compiles an expression for Ethernet frames.
    ///
    /// # Errors
    /// [`Invalid`] if it is no pcap-filter expression.
    pub fn compile(text: &str) -> Result<Self, Invalid> {
        let invalid = |cause| Invalid { text: text.to_owned(), cause };
        let capture = pcap::Capture::dead(pcap::Linktype::ETHERNET).map_err(invalid)?;
        let program = capture.compile(text, true).map_err(invalid)?;
        let instructions = program.get_instructions();
        let mut encoded = instructions.len().to_string();
        for instruction in instructions {
            encoded.push(',');
            // The number in "accept" is how many bytes to keep, here libpcap's default. Offloaded frames may be longer, and how
            // much is kept is the snaplen's business.
            match instruction.to_string().as_str() {
                "6 0 0 65535" => encoded.push_str("6 0 0 262144"),
                other => encoded.push_str(other),
            }
        }
        Ok(Self { text: text.to_owned(), program: encoded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiles_what_tcpdump_would() {
        let filter = Filter::compile("ip").unwrap();
        assert_eq!(filter.program, "4,40 0 0 12,21 0 1 2048,6 0 0 262144,6 0 0 0");
    }

    #[test]
    fn says_what_is_wrong() {
        let error = Filter::compile("prot 80").unwrap_err().to_string();
        assert!(error.contains("\"prot 80\"") && error.contains("syntax error"), "{error}");
    }
}
