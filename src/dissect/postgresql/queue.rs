//! What the server owes: an answer to each message but Flush, in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Cx, Message, Role, Statement, sql};

/// The most requests that wait for their answers.
const MAX_HELD: usize = 16_384;
/// The most messages that wait for their answers.
const MAX_STEPS: usize = 8 * MAX_HELD;
/// How far behind the oldest message the one that is answered is looked for.
const MAX_AHEAD: usize = 64;

/// A message that the server answers.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Startup,
    Query,
    FunctionCall,
    Execute,
    Parse,
    Bind,
    /// The statement that is described.
    Describe(Option<Arc<Statement>>),
    Close,
    Sync,
}

impl Step {
    /// A message of it waits for its answer.
    fn is_held(&self) -> bool {
        matches!(self, Self::Startup | Self::Query | Self::FunctionCall | Self::Execute | Self::Parse)
    }

    /// `ReadyForQuery` answers it.
    pub(super) fn ends_batch(&self) -> bool {
        matches!(self, Self::Startup | Self::Query | Self::FunctionCall | Self::Sync)
    }
}

/// A request that waits for its answer.
pub(super) struct Held {
    pub(super) message: Message,
    /// Whose text is the target.
    pub(super) statement: Option<Arc<Statement>>,
    /// The formats of the columns that come back.
    pub(super) formats: Vec<i16>,
}

impl Held {
    pub(super) fn new(message: Message) -> Self {
        Self { message, statement: None, formats: Vec::new() }
    }

    pub(super) fn is_execute(&self) -> bool {
        self.message.operation == "Execute"
    }

    pub(super) fn into_request(self) -> Message {
        let mut message = self.message;
        if let Some(statement) = self.statement {
            message.target.clone_from(&statement.text);
            if statement.cut {
                message.warnings.push(sql::CUT.into());
            }
        }
        message
    }
}

/// Hands on a request that has no answer. A Parse is one only if it failed.
pub(super) fn unanswered(held: Option<Held>, cx: &mut Cx<'_>) {
    if let Some(held) = held.filter(|held| held.message.operation != "Parse") {
        let mut message = held.into_request();
        message.role = Role::OneWay;
        cx.emit(message);
    }
}

#[derive(Default)]
pub(super) struct Queue {
    steps: VecDeque<Step>,
    /// The messages of those steps that have one, in the same order.
    held: VecDeque<Held>,
    /// How many of the first steps that have one had to give it up.
    given_up: usize,
    /// How many steps end a batch.
    ends: usize,
}

impl Queue {
    pub(super) fn push(&mut self, step: Step, held: Option<Held>, cx: &mut Cx<'_>) {
        debug_assert_eq!(step.is_held(), held.is_some());
        if self.steps.len() >= MAX_STEPS {
            // Nobody answers.
            while let Some((_, held)) = self.pop() {
                unanswered(held, cx);
            }
        }
        if let Some(held) = held {
            if self.held.len() >= MAX_HELD
                && let Some(mut oldest) = self.held.pop_front()
            {
                self.given_up += 1;
                oldest.message.warnings.push("too many open requests: its response is not awaited".into());
                unanswered(Some(oldest), cx);
            }
            self.held.push_back(held);
        }
        self.ends += usize::from(step.ends_batch());
        self.steps.push_back(step);
    }

    pub(super) fn front(&self) -> Option<&Step> {
        self.steps.front()
    }

    /// The message of the oldest step, if it has one.
    pub(super) fn held(&mut self) -> Option<&mut Held> {
        if self.given_up > 0 || !self.steps.front().is_some_and(Step::is_held) {
            return None;
        }
        self.held.front_mut()
    }

    /// All messages that wait.
    pub(super) fn all_held(&mut self) -> impl Iterator<Item = &mut Held> {
        self.held.iter_mut()
    }

    /// Takes the message of the oldest step away from it, if it has one.
    pub(super) fn take_held(&mut self) -> Option<Held> {
        self.held()?;
        self.given_up += 1;
        self.held.pop_front()
    }

    /// The oldest step, with its message.
    pub(super) fn pop(&mut self) -> Option<(Step, Option<Held>)> {
        let step = self.steps.pop_front()?;
        self.ends -= usize::from(step.ends_batch());
        let held = match self.given_up {
            _ if !step.is_held() => None,
            0 => self.held.pop_front(),
            _ => {
                self.given_up -= 1;
                None
            }
        };
        Some((step, held))
    }

    /// Makes the first step of the batch that `is` says yes to the oldest; those before it were not answered. False, and
    /// nothing is done, if there is none.
    pub(super) fn advance(&mut self, is: impl Fn(&Step) -> bool, cx: &mut Cx<'_>) -> bool {
        let ahead = self.steps.iter().take(MAX_AHEAD);
        let Some(found) = ahead.clone().position(&is) else { return false };
        if ahead.take(found).any(Step::ends_batch) {
            return false;
        }
        for _ in 0..found {
            if let Some((_, held)) = self.pop() {
                unanswered(held, cx);
            }
        }
        true
    }

    /// Makes the step that ends the batch the oldest; those before it were not answered. False if it was not sent yet.
    pub(super) fn advance_to_end(&mut self, cx: &mut Cx<'_>) -> bool {
        if self.ends == 0 {
            return false;
        }
        while self.steps.front().is_some_and(|step| !step.ends_batch()) {
            if let Some((_, held)) = self.pop() {
                unanswered(held, cx);
            }
        }
        true
    }

    /// Forgets the Syncs that were sent before COPY data were asked for: the server passes over them.
    pub(super) fn forget_syncs(&mut self) {
        self.steps.retain(|step| !matches!(step, Step::Sync));
        self.ends = self.steps.iter().filter(|step| step.ends_batch()).count();
    }
}
