//! Classes that are held back, and the flows of theirs that stand aside meanwhile.
//!
//! A flow is set aside when its turn comes, so holding a class back costs nothing for what is never reached. Letting it
//! go costs as little: its flows come back level by level, when a level is the next one to be served.

use hodei_core::job::Priority;

use super::tree::LEVELS;

/// A flow that stands aside, and its class.
#[derive(Clone, Copy, Debug)]
struct Aside {
    flow: u32,
    class: u32,
}

/// Which classes are held back, and who stands aside.
#[derive(Debug)]
pub(super) struct Held {
    /// A bit for each class that is held back.
    classes: Vec<u64>,
    held: usize,
    /// By class: none of its jobs is at a level above this one, as long as it is held back.
    tops: Vec<u8>,
    aside: Vec<Vec<Aside>>,
    /// The levels at which anybody stands aside.
    levels: u64,
    /// Those of them at which somebody's class may have been let go.
    loosened: u64,
}

impl Default for Held {
    fn default() -> Self {
        let aside = vec![Vec::new(); LEVELS];
        Self { classes: Vec::new(), held: 0, tops: Vec::new(), aside, levels: 0, loosened: 0 }
    }
}

impl Held {
    /// Whether no class is held back and nobody stands aside.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0 && self.levels == 0
    }

    #[inline]
    pub(super) fn has(&self, class: u32) -> bool {
        self.classes.get(word(class)).is_some_and(|word| word & bit(class) != 0)
    }

    /// Holds a class back that has no jobs above a level.
    pub(super) fn hold(&mut self, class: u32, top: u8) {
        if self.has(class) {
            return;
        }
        if self.classes.len() <= word(class) {
            self.classes.resize(word(class) + 1, 0);
            self.tops.resize(self.classes.len() * 64, 0);
        }
        self.classes[word(class)] |= bit(class);
        self.tops[class as usize] = top;
        self.held += 1;
    }

    /// Lets a class go.
    pub(super) fn let_go(&mut self, class: u32) {
        if self.has(class) {
            self.classes[word(class)] &= !bit(class);
            self.held -= 1;
            self.loosened |= self.levels;
        }
    }

    /// A job came to a flow of a class that had none at that level.
    #[inline]
    pub(super) fn came(&mut self, class: u32, level: Priority) {
        if self.held > 0 && self.has(class) {
            let top = &mut self.tops[class as usize];
            *top = (*top).max(level.level());
        }
    }

    /// Sets a flow aside that is not there yet.
    pub(super) fn set_aside(&mut self, flow: u32, class: u32, level: Priority) {
        let level = usize::from(level.level()) % LEVELS;
        self.aside[level].push(Aside { flow, class });
        self.levels |= 1 << level;
    }

    /// Forgets a flow that stands aside.
    pub(super) fn forget(&mut self, flow: u32, level: Priority) {
        let level = usize::from(level.level()) % LEVELS;
        self.aside[level].retain(|aside| aside.flow != flow);
        if self.aside[level].is_empty() {
            self.levels &= !(1 << level);
        }
    }

    /// The highest level at which somebody may come back.
    #[inline]
    pub(super) fn loosened(&self) -> Option<u32> {
        63_u32.checked_sub((self.loosened & self.levels).leading_zeros())
    }

    /// Has the flows of a level come back whose classes are not held back any more.
    pub(super) fn come_back(&mut self, level: u32, mut back: impl FnMut(u32)) {
        let classes = &self.classes;
        let held = |class: u32| classes.get(word(class)).is_some_and(|word| word & bit(class) != 0);
        let aside = &mut self.aside[level as usize];
        aside.retain(|aside| {
            let stays = held(aside.class);
            if !stays {
                back(aside.flow);
            }
            stays
        });
        self.loosened &= !(1 << level);
        if aside.is_empty() {
            self.levels &= !(1 << level);
        }
    }

    /// Goes through the classes that are held back, in order, each with its level.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Priority)> + '_ {
        (0..).zip(&self.classes).flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let first = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at * 64 + first)
            })
            .map(|class| (class, Priority::new(self.tops[class as usize]).unwrap_or(Priority::MAX)))
        })
    }
}

fn word(class: u32) -> usize {
    (class / 64) as usize
}

fn bit(class: u32) -> u64 {
    1 << (class % 64)
}
