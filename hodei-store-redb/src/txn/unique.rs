//! The unique keys that jobs leave before they are pruned.

use hodei_core::Result;
use hodei_core::job::Held;

use super::work::Work;
use crate::codec::{self, Head};
use crate::key;
use crate::rows::Rows;
use crate::table::Tab;

impl Work<'_, '_> {
    /// Frees the unique key of a job that has just moved, if it has left it. Another one may have it already.
    pub(super) fn free_key(&mut self, head: &Head) -> Result<()> {
        if head.key == Held::UntilPruned || head.holds_key() {
            return Ok(());
        }
        if let Some(key) = self.key_of(head)?
            && self.read(Tab::Unique, &key, codec::id)? == Some(head.job.id)
        {
            self.remove(Tab::Unique, &key)?;
        }
        Ok(())
    }

    /// Returns where the unique key of a job is that it takes when it is redriven.
    pub(super) fn key_taken_again(&mut self, head: &Head) -> Result<Option<Vec<u8>>> {
        if head.key.is_taken_again() { self.key_of(head) } else { Ok(None) }
    }

    fn key_of(&mut self, head: &Head) -> Result<Option<Vec<u8>>> {
        let unique = self.fixed(head.job.id)?.unique;
        Ok(unique.map(|text| key::tenant_text(&head.job.tenant, &text)))
    }
}
