//! The unique keys that are free once their job has ended.

use hodei_core::Result;

use super::work::Work;
use crate::codec::Head;
use crate::key;
use crate::rows::Rows;
use crate::table::Tab;

impl Work<'_, '_> {
    /// Frees the unique key of a job that has just ended, if it goes with the end.
    pub(super) fn free_key(&mut self, head: &Head) -> Result<()> {
        if head.open_key
            && head.job.state.is_terminal()
            && let Some(key) = self.key_of(head)?
        {
            self.remove(Tab::Unique, &key)?;
        }
        Ok(())
    }

    /// Returns where the unique key of a job is, if it is one that is free once the job has ended.
    pub(super) fn key_of(&mut self, head: &Head) -> Result<Option<Vec<u8>>> {
        if !head.open_key {
            return Ok(None);
        }
        let unique = self.fixed(head.job.id)?.unique;
        Ok(unique.map(|text| key::tenant_text(&head.job.tenant, &text)))
    }
}
