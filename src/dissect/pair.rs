//! Requests and responses → entries. The only matcher: by order where ids are 0, else by id.

use std::collections::VecDeque;

use super::{Message, Role};
use crate::entry::{Direction, Endpoint, Entry, Half, Text};

/// The most requests of one flow that wait for their responses.
const MAX_OPEN: usize = 16_384;

/// The requests of one flow that wait for their responses.
#[derive(Debug, Default)]
pub struct Pairer {
    open: VecDeque<(&'static str, Message)>,
    /// Responses that answer requests which were given up.
    given_up: [u64; 2],
    remains: u64,
}

/// The ends of a flow.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Who opened it.
    pub client: Endpoint,
    /// Who was called.
    pub server: Endpoint,
    /// Where it was captured.
    pub tap: u32,
}

impl Pairer {
    /// Takes one message of a protocol and hands on the entry that it completes, if it does; `broken` if bytes are missing
    /// somewhere before it.
    pub fn message(
        &mut self,
        protocol: &'static str,
        repeats: bool,
        broken: bool,
        message: Message,
        ends: &Ends,
        out: &mut impl FnMut(Entry),
    ) {
        match message.role {
            Role::OneWay => out(entry(protocol, Some(message), None, ends)),
            Role::Lost => self.gap(message.direction, ends, out),
            Role::Request => {
                if repeats && let Some((_, first)) = self.open.iter_mut().find(|(_, open)| same(open, &message)) {
                    if first.warnings.is_empty() {
                        first.warnings.push(Text::Borrowed("repeated before it was answered"));
                    }
                    return;
                }
                if self.open.len() >= MAX_OPEN
                    && let Some((protocol, mut oldest)) = self.open.pop_front()
                {
                    if let Some(given_up) = self.given_up.get_mut(oldest.direction.index()).filter(|_| oldest.id == 0) {
                        *given_up += 1;
                    }
                    oldest.warnings.push(Text::Borrowed("too many open requests: its response is not awaited"));
                    out(entry(protocol, Some(oldest), None, ends));
                }
                self.open.push_back((protocol, message));
            }
            Role::Response => {
                let asked = message.direction.reverse();
                if let Some(given_up @ 1..) = self.given_up.get_mut(asked.index()).filter(|_| message.id == 0) {
                    *given_up -= 1;
                    return;
                }
                let at = self.open.iter().position(|(_, open)| open.direction == asked && open.id == message.id);
                match at.and_then(|at| self.open.remove(at)) {
                    Some((protocol, request)) => out(entry(protocol, Some(request), Some(message), ends)),
                    // What is left of a response without its request tells little, and may be no response at all, unless it
                    // says itself what was asked.
                    None if broken || !message.warnings.is_empty() && message.target.is_empty() => {
                        self.remains += 1;
                    }
                    None => out(entry(protocol, None, Some(message), ends)),
                }
            }
        }
    }

    /// Responses that lack their requests and bytes of their own or before them: they are no entries.
    pub fn remains(&self) -> u64 {
        self.remains
    }

    /// Responses of `direction`'s sender are missing: the requests that are paired by order can't be answered any more.
    pub fn gap(&mut self, direction: Direction, ends: &Ends, out: &mut impl FnMut(Entry)) {
        let asked = direction.reverse();
        if let Some(given_up) = self.given_up.get_mut(asked.index()) {
            *given_up = 0;
        }
        let (lost, kept) =
            std::mem::take(&mut self.open).into_iter().partition(|(_, open)| open.direction == asked && open.id == 0);
        self.open = kept;
        let lost: VecDeque<_> = lost;
        for (protocol, mut request) in lost {
            request.warnings.push(Text::Borrowed("the capture lacks bytes of its response"));
            out(entry(protocol, Some(request), None, ends));
        }
    }

    /// The flow has ended: requests without a response become entries too.
    pub fn finish(&mut self, ends: &Ends, out: &mut impl FnMut(Entry)) {
        for (protocol, request) in self.open.drain(..) {
            out(entry(protocol, Some(request), None, ends));
        }
    }
}

/// True if the second is the first, sent again.
fn same(open: &Message, again: &Message) -> bool {
    open.direction == again.direction
        && open.id == again.id
        && open.operation == again.operation
        && open.target == again.target
}

fn half(message: &mut Message) -> Half {
    Half {
        time: message.time,
        packet: message.packet,
        position: message.position,
        bytes: message.bytes,
        body: message.body,
        detail: std::mem::take(&mut message.detail),
    }
}

fn entry(protocol: &'static str, request: Option<Message>, response: Option<Message>, ends: &Ends) -> Entry {
    let sender = request.as_ref().map_or_else(
        || response.as_ref().map_or(Direction::ToServer, |response| response.direction.reverse()),
        |request| request.direction,
    );
    let (src, dst) = match sender {
        Direction::ToServer => (&ends.client, &ends.server),
        Direction::ToClient => (&ends.server, &ends.client),
    };
    let mut entry = Entry { tap: ends.tap, ..Entry::new(protocol, src.clone(), dst.clone()) };
    if let Some(first) = request.as_ref().or(response.as_ref()) {
        (entry.time, entry.decrypted) = (first.time, first.decrypted);
    }
    if let (Some(request), Some(response)) = (&request, &response) {
        entry.latency = Some(response.time.since(request.time));
    }
    if let Some(mut request) = request {
        entry.request = Some(half(&mut request));
        entry.operation = request.operation;
        entry.target = request.target;
        entry.warnings = request.warnings;
        entry.status = request.status;
        entry.failed = request.failed;
        entry.ids = request.ids;
    } else {
        entry.warnings.push(Text::Borrowed("the capture lacks its request"));
    }
    if let Some(mut response) = response {
        entry.response = Some(half(&mut response));
        if entry.operation.is_empty() {
            entry.operation = response.operation;
        }
        if entry.target.is_empty() {
            entry.target = response.target;
        }
        if entry.status.is_empty() {
            entry.status = response.status;
            entry.failed = response.failed;
        }
        match (&mut entry.ids, response.ids) {
            (Some(ids), Some(more)) => ids.join(*more),
            (ids @ None, more) => *ids = more,
            (Some(_), None) => {}
        }
        // What goes for both halves is said once.
        response.warnings.retain(|warning| !entry.warnings.contains(warning));
        entry.warnings.append(&mut response.warnings);
    }
    entry
}
