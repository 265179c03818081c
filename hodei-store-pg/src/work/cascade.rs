//! Telling children of their parents' ends.

use std::collections::VecDeque;

use hodei_core::job::{Requires, State, rules};
use hodei_core::{JobId, Result};

use super::transaction::Work;

impl Work<'_> {
    /// Tells the children of a job that has ended, and theirs; a list instead of recursion, however deep it goes.
    pub(crate) async fn cascade(&mut self, ended: JobId) -> Result<()> {
        let mut ended = VecDeque::from([ended]);
        // Those that end together are asked for together: a round trip for each level, not for each job.
        let mut asked = 0_usize;
        while let Some(parent) = ended.pop_front() {
            if asked == 0 {
                let level: Vec<JobId> = std::iter::once(parent).chain(ended.iter().copied()).collect();
                self.load_children(&level).await?;
                asked = level.len();
            }
            asked -= 1;
            let Some(state) = self.settled_state(parent) else { continue };
            let mut children: Vec<JobId> = self.edges.children_of(parent).collect();
            if children.iter().any(|child| self.is_turn(parent, *child)) && !self.had_turn(parent).await? {
                // Those behind it are told when its turn comes.
                children.retain(|child| !self.is_turn(parent, *child));
            }
            for child in children {
                if self.tell(parent, child, state) {
                    ended.push_back(child);
                }
            }
        }
        Ok(())
    }

    pub(super) fn settled_state(&self, id: JobId) -> Option<State> {
        self.job(id).map(|job| job.state).filter(|state| state.is_terminal())
    }

    /// Whether a parent comes before a child in their sequence.
    fn is_turn(&self, parent: JobId, child: JobId) -> bool {
        let requires = self.job(child).and_then(|job| rules::requirement(job, parent));
        requires.is_some_and(Requires::is_turn)
    }

    /// Tells a child of a parent's end, unless it was told before; says whether the child has ended, by it or before its
    /// turn.
    pub(super) fn tell(&mut self, parent: JobId, child: JobId, state: State) -> bool {
        if !self.edges.tell(parent, child) {
            return false;
        }
        if self.is_turn(parent, child) && self.settled_state(child).is_some() {
            return true;
        }
        let now = self.now;
        let ended = self.update(child, |job| {
            let change = rules::requirement(job, parent)
                .and_then(|requires| rules::parent_settled(job, requires, state, now));
            (change.is_some() && job.state.is_terminal(), change)
        });
        ended == Some(true)
    }
}
