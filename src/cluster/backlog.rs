//! What a session has received and nobody has read yet: so much in memory, the rest on disk, in order.
//!
//! It stands between the agents' streams and the engine. Whoever reads rows slowly, in a pager or not at all, should not
//! have agents wait: their buffers are small, and what those flush is lost. Where the disk takes no more, agents do wait; what
//! they flush then they count.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::block_in_place;

use super::error::Error;
use super::event::Event;
use super::spill::Spill;
use crate::capture::{Batch, Stored};

/// Bytes that wait in memory: some seconds of a busy session, for which no file should be made.
const MEMORY: usize = 32 << 20;

/// Bytes that wait on disk: an hour at 10 Mbit/s. More of somebody's disk should not be taken without being asked.
const DISK: u64 = 4 << 30;

/// The events of a session, which come as they are received and are read as late as one likes.
#[derive(Debug)]
pub struct Backlog {
    events: Receiver<Event>,
    spilled: Arc<AtomicU64>,
}

impl Backlog {
    /// Receives `events` from now on, on a thread of the runtime, which must have several.
    #[must_use]
    pub fn new(events: Receiver<Event>) -> Self {
        Self::with(events, MEMORY, DISK)
    }

    fn with(events: Receiver<Event>, memory: usize, disk: u64) -> Self {
        let (sender, read) = mpsc::channel(1);
        let spilled = Arc::default();
        let waiting = Waiting {
            queue: VecDeque::new(),
            held: 0,
            memory,
            spill: Spill::new(disk),
            refused: None,
            spilled: Arc::clone(&spilled),
        };
        tokio::spawn(waiting.pass(events, sender));
        Self { events: read, spilled }
    }

    /// The next event; none once all senders are gone and everything was read.
    pub async fn recv(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Packets that have waited on disk so far.
    pub fn spilled(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }
}

/// All that waits.
struct Waiting {
    queue: VecDeque<Slot>,
    /// Bytes in memory.
    held: usize,
    /// The most of them, but for the last event.
    memory: usize,
    spill: Spill,
    /// Why the disk takes no more, until all that was written is read.
    refused: Option<Refused>,
    spilled: Arc<AtomicU64>,
}

/// Why nothing more goes to disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It holds as much as it may; there is room again when some of it is read.
    Limit,
    /// It cannot be written.
    Broken,
}

/// A place in the queue.
enum Slot {
    Held(Event),
    /// So many batches, one after the other.
    OnDisk(u64),
}

impl Waiting {
    /// Takes from one end and gives to the other until either is closed.
    async fn pass(mut self, mut from: Receiver<Event>, to: Sender<Event>) {
        let mut is_open = true;
        while is_open || !self.queue.is_empty() {
            tokio::select! {
                () = to.closed() => return,
                event = from.recv(), if is_open && self.has_room() => match event {
                    Some(event) => self.push(event),
                    None => is_open = false,
                },
                permit = to.reserve(), if !self.queue.is_empty() => {
                    let Ok(permit) = permit else { return };
                    if let Some(event) = self.pop() {
                        permit.send(event);
                    }
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.held < self.memory || (self.refused != Some(Refused::Broken) && self.spill.has_room())
    }

    fn push(&mut self, event: Event) {
        match event {
            // What describes interfaces is little, and all that follows needs it.
            Event::Batch { tap, batch } if self.held >= self.memory && batch.interfaces.is_empty() => {
                match block_in_place(|| self.spill.put(tap, &batch)) {
                    Ok(()) => {
                        self.spilled.fetch_add(batch.frames.len() as u64, Ordering::Relaxed);
                        if let Some(Slot::OnDisk(count)) = self.queue.back_mut() {
                            *count += 1;
                        } else {
                            self.queue.push_back(Slot::OnDisk(1));
                        }
                        if !self.spill.has_room() {
                            self.refuse(Refused::Limit, "it holds as much as it may");
                        }
                    }
                    Err(cause) => {
                        self.refuse(Refused::Broken, &cause.to_string());
                        self.hold(Event::Batch { tap, batch });
                    }
                }
            }
            event => self.hold(event),
        }
    }

    fn hold(&mut self, mut event: Event) {
        if let Event::Batch { batch, .. } = &mut event {
            // They are made with room for a whole read, however little has come.
            batch.bytes.shrink_to_fit();
        }
        self.held += weight(&event);
        self.queue.push_back(Slot::Held(event));
    }

    /// Says, once in a while, that the disk takes no more.
    fn refuse(&mut self, refused: Refused, why: &str) {
        if self.refused.replace(refused).is_none() {
            let message = format!(
                "what waits to be read cannot all be kept on disk: {why}; agents wait, and what they flush meanwhile is counted"
            );
            let hint = format!("read faster, or capture less with --filter; TMPDIR={} is where it is", temporary());
            self.hold(Event::Trouble(Error::new(message).hint(hint)));
        }
    }

    /// The oldest event; none if it could not be read, and others have taken its place.
    fn pop(&mut self) -> Option<Event> {
        match self.queue.pop_front()? {
            Slot::Held(event) => {
                self.held -= weight(&event);
                Some(event)
            }
            Slot::OnDisk(count) => {
                if count > 1 {
                    self.queue.push_front(Slot::OnDisk(count - 1));
                }
                let taken = block_in_place(|| self.spill.take());
                if self.spill.is_empty() {
                    self.refused = None;
                }
                taken.map(|(tap, batch)| Event::Batch { tap, batch }).map_err(|cause| self.abandon(&cause)).ok()
            }
        }
    }

    /// Nothing that is on disk can be read any more.
    fn abandon(&mut self, cause: &io::Error) {
        self.queue.retain(|slot| matches!(slot, Slot::Held(_)));
        let lost = self.spill.abandon().into_iter().filter(|(_, count)| *count > 0);
        let lost: Vec<Event> = lost.map(|(tap, count)| Event::Lost { tap, count }).collect();
        let error = Error::new(format!("what waited on disk cannot be read: {cause}"));
        for event in lost.into_iter().chain([Event::Trouble(error)]) {
            self.held += weight(&event);
            self.queue.push_front(Slot::Held(event));
        }
    }
}

fn temporary() -> String {
    std::env::temp_dir().display().to_string()
}

/// Bytes of memory that an event takes, about.
fn weight(event: &Event) -> usize {
    let Event::Batch { batch: Batch { bytes, frames, .. }, .. } = event else { return size_of::<Event>() };
    size_of::<Event>() + bytes.capacity() + frames.capacity() * size_of::<Stored>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Interface, Note};
    use crate::entry::Timestamp;

    /// A packet of a hundred bytes with that number, and a note with it.
    fn batch(tap: u32, id: u64) -> Event {
        let frame =
            Stored { number: id, id: Some(id), time: Timestamp(-7), interface: 1, len: 200, start: 4, end: 104 };
        let notes = vec![Note::Flushed { from: id, count: 2 }, Note::Secrets(vec![0, 255])];
        let bytes = vec![id as u8; 108];
        Event::Batch { tap, batch: Batch { bytes, frames: vec![frame], notes, ..Batch::default() } }
    }

    fn shown(event: Option<&Event>) -> String {
        format!("{event:?}")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_keeps_its_order_and_its_bytes_wherever_it_waits() {
        let events = |id: u64| match id % 5 {
            0 => Event::Restarted { tap: 1 },
            1 => {
                let interfaces = vec![Interface::named("shop/web:eth0".into(), 1, 0)];
                Event::Batch { tap: 2, batch: Batch { interfaces, ..Batch::default() } }
            }
            _ => batch(1, id),
        };
        let (sender, received) = mpsc::channel(4);
        let mut backlog = Backlog::with(received, 2000, 1 << 20);
        for id in 0..500 {
            // It takes all of them, though nobody reads.
            sender.send(events(id)).await.unwrap();
            if id == 250 {
                for read in 0..100 {
                    assert_eq!(shown(backlog.recv().await.as_ref()), shown(Some(&events(read))));
                }
            }
        }
        drop(sender);
        for id in 100..500 {
            assert_eq!(shown(backlog.recv().await.as_ref()), shown(Some(&events(id))));
        }
        assert!(backlog.recv().await.is_none());
        assert!((200..300).contains(&backlog.spilled()), "{}", backlog.spilled());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn beyond_the_limit_senders_wait_and_that_is_said_once() {
        let (sender, received) = mpsc::channel(1);
        let mut backlog = Backlog::with(received, 1000, 4000);
        let mut sent = 0;
        // Nothing moves but by this test, so a sender that has to wait now would for ever.
        while tokio::time::timeout(std::time::Duration::from_secs(1), sender.send(batch(1, sent))).await.is_ok() {
            sent += 1;
        }
        assert!(sent < 60, "{sent}");
        let sending = tokio::spawn(async move {
            for id in sent..200 {
                sender.send(batch(1, id)).await.unwrap();
            }
        });
        let mut said = 0;
        let mut due = 0;
        while let Some(event) = backlog.recv().await {
            if let Event::Trouble(error) = &event {
                assert!(error.message.contains("it holds as much as it may"), "{error}");
                said += 1;
                continue;
            }
            assert_eq!(shown(Some(&event)), shown(Some(&batch(1, due))));
            due += 1;
        }
        sending.await.unwrap();
        assert_eq!(due, 200);
        assert!(said >= 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_read_is_lost_and_counted() {
        let mut waiting = Waiting {
            queue: VecDeque::new(),
            held: 0,
            memory: 1,
            spill: Spill::new(1 << 20),
            refused: None,
            spilled: Arc::default(),
        };
        for event in [Event::Restarted { tap: 9 }, batch(1, 1), batch(2, 2), batch(1, 3), Event::Resumed { tap: 1 }] {
            waiting.push(event);
        }
        assert_eq!(shown(waiting.pop().as_ref()), shown(Some(&Event::Restarted { tap: 9 })));
        waiting.abandon(&io::Error::other("gone"));
        let mut told = std::iter::from_fn(|| waiting.pop());
        assert!(matches!(told.next(), Some(Event::Trouble(_))));
        let mut rest: Vec<String> = told.map(|event| shown(Some(&event))).collect();
        assert_eq!(rest.pop(), Some(shown(Some(&Event::Resumed { tap: 1 }))));
        rest.sort();
        assert_eq!(rest, [Event::Lost { tap: 1, count: 2 }, Event::Lost { tap: 2, count: 1 }].map(|e| shown(Some(&e))));
    }
}
