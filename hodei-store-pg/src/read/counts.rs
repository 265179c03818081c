//! How many jobs are in each state.

use std::sync::Arc;

use hodei_core::Result;
use hodei_core::job::State;
use hodei_core::store::{Counts, Scope};

use crate::ask;
use crate::error::failed;
use crate::inner::{Inner, reading};
use crate::names::column;
use crate::policies::tenant_name;

const OP: &str = "store.counts";

impl Inner {
    pub(crate) async fn counts(self: &Arc<Self>, scope: &Scope) -> Result<Counts> {
        let tenant = tenant_name(scope);
        let row = reading!(self, OP, scope, conn => {
            self.trip();
            ask::query(
                "SELECT coalesce(sum(blocked), 0)::int8, coalesce(sum(pending), 0)::int8,
                         coalesce(sum(scheduled), 0)::int8, coalesce(sum(running), 0)::int8,
                         coalesce(sum(succeeded), 0)::int8, coalesce(sum(failed), 0)::int8,
                         coalesce(sum(cancelled), 0)::int8
                     FROM (
                         SELECT tenant, blocked, pending, scheduled, running, succeeded, failed, cancelled
                         FROM hodei.total
                         UNION ALL
                         SELECT tenant, blocked, pending, scheduled, running, succeeded, failed, cancelled
                         FROM hodei.delta
                     ) c
                     WHERE $1::text IS NULL OR c.tenant = (SELECT no FROM hodei.tenant WHERE name = $1)",
            )
            .bind(&tenant)
            .fetch_one(&mut *conn)
            .await
            .map_err(failed(OP))
        })?;
        let mut numbers = [0_u64; State::ALL.len()];
        for (n, number) in numbers.iter_mut().enumerate() {
            *number = column::<i64>(&row, n)?.max(0).cast_unsigned();
        }
        Ok(Counts::from_numbers(numbers))
    }
}
