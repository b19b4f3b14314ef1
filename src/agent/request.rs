//! What is asked of the daemon: one line, of fields with tabs between them.
//!
//! The first field is `status`, `stop`, `arm SECONDS`, `filter` or `stream`. Those of `filter` are the program and its text. Those of `stream` go on with where to start (`all`, `now`,
//! `since SECONDS`, `from NUMBER` or `from NUMBER BOOT`) and then, in any order, `until SECONDS`, `filter PROGRAM`,
//! `text TEXT`, `snaplen BYTES` and `reader NAME`.

use crate::capture::bpf::Program;

/// The longest request: the longest program, most of whose instructions are short.
pub(super) const LONGEST: u64 = 64 << 10;

/// The most characters of a session's name and of its filter's text.
const LONGEST_TEXT: usize = 1024;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Status,
    Stop,
    /// To stay so many seconds, be there sessions or not.
    Arm(u64),
    /// To capture what this accepts from now on; the text says the same for people.
    Filter(Program, String),
    Stream(Box<Session>),
}

/// What a session wants to get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) start: Start,
    /// Only packets from before so many seconds ago; without it, all that come.
    pub(super) until: Option<u64>,
    /// Only what this accepts.
    pub(super) filter: Option<Program>,
    /// The same as the user wrote it.
    pub(super) filter_text: String,
    /// At most so many bytes of each packet; 0 for all that there are.
    pub(super) snaplen: u32,
    /// Who reads, for people.
    pub(super) reader: String,
}

/// Where a session starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Start {
    /// With the oldest packet that there is.
    #[default]
    All,
    /// With the next packet that comes.
    Now,
    /// With the first packet of the last so many seconds.
    Since(u64),
    /// With the packet of that number, of that run of the agent if one is named. In another run's numbers it means
    /// nothing, so all is sent then.
    From(u64, Option<String>),
}

impl Request {
    /// The line, without its end.
    pub(super) fn to_line(&self) -> String {
        match self {
            Self::Status => "status".to_owned(),
            Self::Stop => "stop".to_owned(),
            Self::Arm(seconds) => format!("arm {seconds}"),
            Self::Filter(program, text) => format!("filter\t{}\t{}", program.to_text(), shown(text)),
            Self::Stream(session) => session.to_line(),
        }
    }

    /// None if it makes no sense.
    pub(super) fn from_line(line: &str) -> Option<Self> {
        match line {
            "status" => Some(Self::Status),
            "stop" => Some(Self::Stop),
            _ if line.starts_with("filter\t") => {
                let (program, text) = line.get(7..)?.split_once('\t')?;
                Some(Self::Filter(Program::parse(program).ok()?, text.to_owned()))
            }
            _ if line.starts_with("arm ") => line.get(4..)?.parse().ok().map(Self::Arm),
            _ => Session::from_line(line).map(|session| Self::Stream(Box::new(session))),
        }
    }
}

impl Session {
    /// True if there are packets that it does not get to see.
    pub(super) fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    fn to_line(&self) -> String {
        let mut line = format!("stream\t{}", self.start.to_words());
        let mut field = |key: &str, value: &str| {
            line.extend(["\t", key, " ", &shown(value)]);
        };
        if !self.filter_text.is_empty() {
            field("text", &self.filter_text);
        }
        if !self.reader.is_empty() {
            field("reader", &self.reader);
        }
        if self.snaplen > 0 {
            field("snaplen", &self.snaplen.to_string());
        }
        if let Some(until) = self.until {
            field("until", &until.to_string());
        }
        if let Some(filter) = &self.filter {
            line.push_str("\tfilter ");
            line.push_str(&filter.to_text());
        }
        line
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        if fields.next() != Some("stream") {
            return None;
        }
        let mut session = Self { start: Start::from_words(fields.next()?)?, ..Self::default() };
        for field in fields {
            let (key, value) = field.split_once(' ')?;
            match key {
                "until" => session.until = Some(value.parse().ok()?),
                "filter" => session.filter = Some(Program::parse(value).ok()?),
                "text" => value.clone_into(&mut session.filter_text),
                "snaplen" => session.snaplen = value.parse().ok()?,
                "reader" => value.clone_into(&mut session.reader),
                _ => return None,
            }
        }
        Some(session)
    }
}

/// A text as a field's value: a tab or a line end in it would end it.
fn shown(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(LONGEST_TEXT).collect()
}

impl Start {
    fn to_words(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Now => "now".to_owned(),
            Self::Since(seconds) => format!("since {seconds}"),
            Self::From(number, None) => format!("from {number}"),
            Self::From(number, Some(boot)) => format!("from {number} {boot}"),
        }
    }

    fn from_words(words: &str) -> Option<Self> {
        match words.split(' ').collect::<Vec<_>>().as_slice() {
            ["all"] => Some(Self::All),
            ["now"] => Some(Self::Now),
            ["since", seconds] => Some(Self::Since(seconds.parse().ok()?)),
            ["from", number] => Some(Self::From(number.parse().ok()?, None)),
            ["from", number, boot] => Some(Self::From(number.parse().ok()?, Some((*boot).to_owned()))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    #[test]
    fn survives_the_socket() {
        let boot = Some("2f1c".to_owned());
        for start in [Start::All, Start::Now, Start::Since(300), Start::From(7, None), Start::From(7, boot)] {
            let plain = Session { start, ..Session::default() };
            let full = Session {
                until: Some(0),
                filter: Some(Program::parse("2,21 0 0 1,6 0 0 0").unwrap()),
                filter_text: "tcp port 80".to_owned(),
                snaplen: 96,
                reader: "me and you".to_owned(),
                ..plain.clone()
            };
            for session in [plain, full] {
                let request = Request::Stream(Box::new(session));
                assert_eq!(Request::from_line(&request.to_line()), Some(request));
            }
        }
        let filter = Request::Filter(Program::parse("1,6 0 0 0").unwrap(), "less 1".to_owned());
        for request in [Request::Status, Request::Stop, Request::Arm(60), filter] {
            assert_eq!(Request::from_line(&request.to_line()), Some(request));
        }
    }

    #[test]
    fn text_cannot_break_out_of_its_field() {
        let session = Session { reader: "a\tsnaplen 1\nstop".to_owned(), ..Session::default() };
        assert_eq!(session.to_line(), "stream\tall\treader a snaplen 1 stop");
        let long = Session { filter_text: "x".repeat(5000), ..Session::default() };
        assert!(long.to_line().len() < 1100);
    }

    #[test]
    fn makes_no_sense_of_anything_else() {
        for line in
            ["", "dump", "stream", "stream\tfrom -1", "stream\tall\tuntil", "stream\tall\tfilter 0", "stream\tall\tx y"]
        {
            assert_eq!(Request::from_line(line), None, "{line:?}");
        }
    }
}
