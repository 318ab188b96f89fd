//! One key as a client sees it: what each operation does to it and answers. The sequential
//! specification to which histories are held, written down without a look at quorate's store.

use crate::history::{Action, Answer};
use crate::plausible::Unseen;

/// A key's item, or that there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Register {
    value: Option<String>,
    /// The last unique that a client was told. Later items have larger ones.
    last_unique: u64,
    /// The item that is there has `last_unique`.
    is_told: bool,
}

impl Register {
    /// What the key is after `action`; `None` if it cannot have been answered by `answer`. Without
    /// an answer to compare with, any is right.
    pub(crate) fn after(&self, action: &Action, answer: Option<&Answer>) -> Option<Register> {
        if let (Action::Get, Some(Answer::Hit { value, unique })) = (action, answer) {
            return self.read(value, *unique);
        }
        let (register, right) = self.step(action);
        answer
            .is_none_or(|answer| *answer == right)
            .then_some(register)
    }

    /// A read tells which unique the item has, which nobody could know before.
    fn read(&self, value: &str, unique: Option<u64>) -> Option<Register> {
        let right = self.value.as_deref() == Some(value);
        let mut register = self.clone();
        if let Some(unique) = unique {
            let fits = match self.is_told {
                true => unique == self.last_unique,
                false => unique > self.last_unique,
            };
            if !fits {
                return None;
            }
            register.last_unique = unique;
            register.is_told = true;
        }
        right.then_some(register)
    }

    /// What `action` leaves and answers. A `get` that hits is none of its business.
    fn step(&self, action: &Action) -> (Register, Answer) {
        let same = |answer| (self.clone(), answer);
        let Some(present) = &self.value else {
            return match action {
                Action::Set(value) => (self.with(Some(value.clone())), Answer::Stored),
                Action::Get => same(Answer::Miss),
                Action::Cas { .. } | Action::Delete | Action::Incr(_) => same(Answer::NotFound),
            };
        };
        match action {
            Action::Get => same(Answer::Hit {
                value: present.clone(),
                unique: None,
            }),
            Action::Set(value) => (self.with(Some(value.clone())), Answer::Stored),
            // A unique that some client knows is that of an item which was read: this one, or an
            // earlier one.
            Action::Cas { value, unique } => match self.is_told && *unique == self.last_unique {
                true => (self.with(Some(value.clone())), Answer::Stored),
                false => same(Answer::Exists),
            },
            Action::Delete => (self.with(None), Answer::Deleted),
            Action::Incr(delta) => match number(present) {
                Some(number) => {
                    let sum = number.wrapping_add(*delta);
                    (self.with(Some(sum.to_string())), Answer::Number(sum))
                }
                None => same(Answer::NotANumber),
            },
        }
    }

    /// The same, but that values which nobody was or will be shown are not told apart.
    pub(crate) fn without_unseen(mut self, unseen: &Unseen) -> Register {
        if let Some(value) = &mut self.value {
            let stand_in = unseen.stand_in(value);
            if stand_in != value {
                *value = stand_in.to_owned();
            }
        }
        self
    }

    /// What the key holds, for people.
    pub(crate) fn describe(&self, unseen: &Unseen) -> String {
        match (&self.value, self.is_told) {
            (None, _) => "no item".to_owned(),
            (Some(value), _) if unseen.is_stand_in(value) => "what no answer shows".to_owned(),
            (Some(value), true) => format!("{value}, unique {}", self.last_unique),
            (Some(value), false) => format!("{value}, unique above {}", self.last_unique),
        }
    }

    fn with(&self, value: Option<String>) -> Register {
        Register {
            value,
            last_unique: self.last_unique,
            is_told: false,
        }
    }
}

/// A value as `incr` takes it: digits, without zeros before them.
pub(crate) fn number(value: &str) -> Option<u64> {
    let number: u64 = value.parse().ok()?;
    (number.to_string() == value).then_some(number)
}
