//! One stream: a request with its response (RFC 9113 section 8), from head to trailers.

use std::fmt::Display;

use super::hpack::List;
use crate::dissect::grpc::Learnt;
use crate::dissect::http::{Draft, Media};
use crate::dissect::{Cx, grpc, text};
use crate::entry::{Direction, Text, Timestamp};

/// A header block with what is known of its frames.
#[derive(Clone, Copy, Debug)]
pub(in crate::dissect) struct Block {
    pub direction: Direction,
    /// Nothing follows in this direction.
    pub end: bool,
    /// The size of its frames.
    pub bytes: u64,
    /// When and in which frame of the capture its first byte came.
    pub time: Timestamp,
    pub packet: u64,
}

/// A request with its response.
pub(in crate::dissect) struct Stream {
    /// Pairs the rows' halves.
    id: u64,
    /// Of HTTP.
    version: &'static str,
    /// Which way the request goes.
    asks: Direction,
    request: Option<Draft>,
    response: Option<Draft>,
    /// How many rows the request made, once it was emitted.
    rows: Option<usize>,
    request_over: bool,
    response_over: bool,
    /// All that is to be told has been.
    done: bool,
    /// The response that switched to HTTP/2; it counts if no other comes.
    switching: Option<Draft>,
    authority: String,
    grpc_status: Option<(Text, bool)>,
    grpc_message: Option<String>,
    /// Where a gRPC server tells its descriptors: how many bytes of its answers were taken.
    reflected: Option<usize>,
}

impl Stream {
    pub fn new(id: u64, asks: Direction, version: &'static str) -> Self {
        Self {
            id,
            version,
            asks,
            request: None,
            response: None,
            rows: None,
            request_over: false,
            response_over: false,
            done: false,
            switching: None,
            authority: String::new(),
            grpc_status: None,
            grpc_message: None,
            reflected: None,
        }
    }

    /// The stream of the request that asked for HTTP/2, and made `rows` rows. It is paired by order, as HTTP/1 is.
    pub fn upgraded(asks: Direction, rows: usize, switching: Draft) -> Self {
        Self { rows: Some(rows), request_over: true, switching: Some(switching), ..Self::new(0, asks, "2") }
    }

    /// True if no more frames are to be expected.
    pub fn is_over(&self) -> bool {
        self.request_over && self.response_over
    }

    fn half(&mut self, response: bool) -> &mut Option<Draft> {
        if response { &mut self.response } else { &mut self.request }
    }

    /// Takes a header block.
    pub fn headers(&mut self, block: Block, list: &List, cx: &mut Cx<'_>) {
        let mut head = Head::default();
        for field in list.iter() {
            head.field(field);
        }
        let response = match (head.status, head.method) {
            (Some(_), _) => true,
            (_, Some(_)) => false,
            _ => block.direction != self.asks,
        };
        self.asks = if response { block.direction.reverse() } else { block.direction };
        if !self.done && !head.status.is_some_and(|status| (100..200).contains(&status)) {
            self.take(response, &head, block, list, cx);
        }
        self.after(response, block.end, cx);
    }

    fn take(&mut self, response: bool, head: &Head<'_>, block: Block, list: &List, cx: &Cx<'_>) {
        let trailer = self.half(response).is_some();
        let (version, reflects) = (self.version, self.reflected.is_some());
        let draft = self.half(response).get_or_insert_with(|| {
            let mut draft = if response {
                Draft::response(block.direction, head.status.unwrap_or_default(), version.into(), cx)
            } else {
                let (method, path) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
                Draft::request(block.direction, method, path, version.into(), cx)
            };
            (draft.message.time, draft.message.packet) = (block.time, block.packet);
            if response && reflects {
                draft.keep = draft.keep.max(grpc::MAX_REFLECTION);
            }
            draft
        });
        draft.message.bytes += block.bytes;
        let mut unknown = list.cut;
        for (name, value) in list.iter() {
            unknown |= name.is_none() || value.is_none();
            match (name, value) {
                (Some(b":method" | b":path" | b":status"), _) => {}
                (Some(name), Some(value)) if !trailer => draft.field(name, value, cx),
                (name, value) if cx.detail() => {
                    let fields = if trailer { &mut draft.trailers } else { &mut draft.fields };
                    fields.push(name.unwrap_or(b"[unknown]"), value.unwrap_or(b"[unknown]"), cx.secrets());
                }
                _ => {}
            }
        }
        if unknown {
            draft.warn("some header fields are not known: they refer to ones before the capture, or are too large");
        }
        if !response && !trailer {
            self.authority = text::string(head.authority.or(head.host).unwrap_or_default());
            let reflects = head.path.is_some_and(|path| path.starts_with(grpc::REFLECTION));
            self.reflected = (reflects && cx.detail()).then_some(0);
        }
        if response && let Some(status) = head.grpc_status.and_then(grpc::status) {
            self.grpc_status = Some(status);
            self.grpc_message = head.grpc_message.map(grpc::status_message);
        }
    }

    /// Content of that direction that need not be kept if this is 0.
    pub fn keeps(&self, direction: Direction) -> usize {
        let half = if direction == self.asks { &self.request } else { &self.response };
        half.as_ref().map_or(0, |draft| draft.keep)
    }

    /// Takes `content`, and `skipped` bytes more that are not looked at; `framing` bytes were around it.
    pub fn data(&mut self, direction: Direction, content: &[u8], skipped: u64, framing: u64) {
        let response = direction != self.asks;
        if let Some(draft) = self.half(response) {
            draft.message.bytes = draft.message.bytes.saturating_add(content.len() as u64 + skipped + framing);
            draft.body(content);
            draft.size = draft.size.saturating_add(skipped);
        }
    }

    /// Takes what a server tells of itself, as far as it came.
    pub fn learn(&mut self, learnt: &mut Option<Box<Learnt>>, cx: &mut Cx<'_>) {
        let (Some(reflected), Some(draft)) = (&mut self.reflected, &self.response) else { return };
        let fresh = draft.body.get(*reflected..).unwrap_or_default();
        if !fresh.is_empty() {
            let learnt = learnt.get_or_insert_with(|| Box::new(Learnt::new(&cx.options.descriptors)));
            *reflected += learnt.take(fresh, draft.coding());
            cx.learnt = Some(learnt.descriptors.clone());
        }
    }

    /// A DATA frame has ended.
    pub fn data_end(&mut self, direction: Direction, end: bool, cx: &mut Cx<'_>) {
        self.after(direction != self.asks, end, cx);
    }

    /// `len` bytes of content are missing.
    pub fn lose(&mut self, direction: Direction, len: u64) {
        let response = direction != self.asks;
        if let Some(draft) = self.half(response) {
            draft.lose(len);
            draft.message.bytes = draft.message.bytes.saturating_add(len);
        }
    }

    /// Frames of that direction are missing, which may have been of this stream.
    pub fn lose_frames(&mut self, direction: Direction) {
        let response = direction != self.asks;
        let over = if response { self.response_over } else { self.request_over };
        if let Some(draft) = self.half(response).as_mut().filter(|_| !over) {
            draft.keep = draft.body.len();
            draft.warn("the capture may lack bytes of it");
        } else if response && let Some(draft) = &mut self.request {
            draft.warn("the capture may lack its response");
        }
    }

    /// Emits what can be, now that the half has come so far.
    fn after(&mut self, response: bool, end: bool, cx: &mut Cx<'_>) {
        *(if response { &mut self.response_over } else { &mut self.request_over }) |= end;
        if self.response_over {
            self.finish(None, cx);
        } else if let Some(draft) = &self.response
            && !self.is_grpc()
            && (draft.media == Media::EventStream || draft.is_late(cx))
        {
            self.finish(Some("its body goes on".into()), cx);
        }
    }

    /// The stream was reset by that direction's sender, with an error of that name if it is one.
    pub fn reset(&mut self, direction: Direction, name: impl Display, is_error: bool, cx: &mut Cx<'_>) {
        let by = if direction == self.asks { "client" } else { "server" };
        (self.request_over, self.response_over) = (true, true);
        if let Some(draft) = self.response.as_mut().filter(|_| is_error) {
            draft.message.failed = true;
        }
        self.finish(Some(format!("reset by the {by}: {name}").into()), cx);
    }

    /// The connection has ended.
    pub fn finish_cut(&mut self, cx: &mut Cx<'_>) {
        let cut = self.response.is_some().then_some("its connection ended before it did".into());
        self.finish(cut, cx);
    }

    /// Emits the stream's row or rows, with a warning if it did not end by itself.
    pub fn finish(&mut self, warning: Option<Text>, cx: &mut Cx<'_>) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let is_grpc = self.is_grpc();
        let (request, mut response) = (self.request.take(), self.response.take());
        let answered = response.is_some();
        if let Some(mut draft) = request {
            draft.message.id = self.id;
            if is_grpc && cx.detail() {
                draft.method = cx.method(&draft.message.target);
                if let Some(response) = &mut response {
                    response.method = draft.method.clone();
                }
            }
            if !answered {
                draft.message.warnings.extend(warning.clone());
            }
            if is_grpc {
                draft.message.protocol = Some(grpc::NAME);
                draft.row = Some((draft.message.target.clone().into(), std::mem::take(&mut self.authority)));
            }
            self.rows = Some(draft.emit(cx));
        }
        let rows = self.rows.unwrap_or(1);
        match (response, self.switching.take()) {
            (Some(mut draft), _) => {
                draft.message.id = self.id;
                draft.message.warnings.extend(warning);
                if is_grpc {
                    draft.message.protocol = Some(grpc::NAME);
                    let (status, failed) = self.grpc_status.take().unwrap_or(("".into(), draft.message.failed));
                    if cx.detail() && !status.is_empty() {
                        draft.extra.push(("grpc_status".into(), status.parse::<u64>().ok().into()));
                        draft.extra.extend(self.grpc_message.take().map(|text| ("grpc_message".into(), text.into())));
                    }
                    (draft.message.status, draft.message.failed) = (status, failed);
                }
                draft.answer(rows, cx);
            }
            (None, Some(switching)) => switching.answer(rows, cx),
            (None, None) => {}
        }
    }

    fn is_grpc(&self) -> bool {
        let grpc = |draft: &Option<Draft>| draft.as_ref().is_some_and(|draft| draft.media == Media::Grpc);
        grpc(&self.request) || grpc(&self.response) || self.grpc_status.is_some()
    }
}

/// What of a header block decides about its row.
#[derive(Default)]
struct Head<'a> {
    method: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    status: Option<u16>,
    grpc_status: Option<&'a [u8]>,
    grpc_message: Option<&'a [u8]>,
}

impl<'a> Head<'a> {
    fn field(&mut self, (name, value): (Option<&'a [u8]>, Option<&'a [u8]>)) {
        match name {
            Some(b":method") => self.method = value,
            Some(b":path") => self.path = value,
            Some(b":authority") => self.authority = value,
            Some(b"host") => self.host = value,
            Some(b":status") => {
                let value = value.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
                self.status = value.filter(|status| (100..1000).contains(status));
            }
            Some(b"grpc-status") => self.grpc_status = value,
            Some(b"grpc-message") => self.grpc_message = value,
            _ => {}
        }
    }
}
