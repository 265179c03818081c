//! What is written is what is read, for values of every kind.

use std::sync::Arc;
use std::time::Duration;

use hodei_core::Tenant;
use hodei_core::store::{Counts, Limit, QueueCounts, QueuePolicy, Rate, Schedule, Spent};
use proptest::option::of;
use proptest::prelude::*;

use super::any::{change, job, name, newborn, settled, spec, state, time};
use crate::codec::samples::{born, born_row, head_row};
use crate::codec::{self, Head, Names, OwnerRow, TermRow};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_job_is_the_sum_of_its_rows(job in job()) {
        let names = &mut Names::default();
        let head = codec::head(job.id, &head_row(&Head::of(job.clone(), 7)).unwrap(), names).unwrap();
        let fixed = codec::fixed(&born(&job), &mut Names::default(), |_| None).unwrap();
        let end = job.settled.as_deref().map(|end| codec::end(&codec::end_row(end).unwrap()).unwrap());
        prop_assert_eq!(head.summary(), job.summary());
        let shown = codec::shown(job.id, &head_row(&Head::of(job.clone(), 7)).unwrap(), names).unwrap();
        prop_assert_eq!((&shown.summary, shown.newborn), (&job.summary(), head.is_newborn()));
        prop_assert_eq!((head.class, &head.limit_keys), (job.spec.class(), job.spec.limit_keys()));
        prop_assert_eq!(head.batch, 7);
        prop_assert_eq!(head.full(fixed, end.map(Arc::new)), job);
    }

    #[test]
    fn ends_and_changes_come_back(end in settled(), changes in prop::collection::vec(change(), 0..5)) {
        prop_assert_eq!(codec::end(&codec::end_row(&end).unwrap()).unwrap(), end);
        prop_assert_eq!(codec::changes(&codec::changes_row(&changes).unwrap()).unwrap(), changes);
    }

    #[test]
    fn a_known_spec_is_taken_as_it_is(job in job()) {
        let row = born(&job);
        let known = |fingerprint| (fingerprint == job.spec.fingerprint()).then(|| Arc::clone(&job.spec));
        prop_assert!(Arc::ptr_eq(&codec::fixed(&row, &mut Names::default(), known).unwrap().spec, &job.spec));
    }

    #[test]
    fn a_job_to_which_nothing_has_happened_is_what_it_was_born_with(job in newborn(), batch in any::<u64>()) {
        let row = born_row(&job, batch).unwrap();
        let names = &mut Names::default();
        let (head, fixed) = codec::born(job.id, &row, names, |_| None).unwrap();
        prop_assert_eq!(head.summary(), job.summary());
        let shown = codec::newborn_shown(job.id, &row, names).unwrap();
        prop_assert_eq!((&shown.summary, shown.newborn), (&job.summary(), head.is_newborn()));
        prop_assert_eq!((head.batch, head.is_newborn()), (batch, job.parents.is_empty()));
        prop_assert_eq!(&codec::newborn(job.id, &row, names).unwrap().full(fixed.clone(), None), &job);
        prop_assert_eq!(head.full(fixed, None), job);
    }

    #[test]
    fn what_operators_set_comes_back(
        of in (name(), name()),
        numbers in any::<(u32, u32, bool)>(),
        spec in spec(),
        rule in any::<String>(),
        last_fired in of(time()),
    ) {
        let (tenant, name) = (Tenant::from(of.0), of.1);
        let (max, weight, paused) = numbers;
        for limit in [
            Limit::all(max),
            Limit::tenant(tenant.clone(), max),
            Limit::queue(tenant.clone(), name.clone(), max),
            Limit::key(tenant.clone(), name.clone(), max),
        ] {
            prop_assert_eq!(codec::limit(&codec::limit_row(&limit).unwrap()).unwrap(), limit.clone());
            let paced = (Rate::new(max.max(1), Duration::from_secs(1)), Spent::until_nanos(i64::from(max)));
            let row = codec::rate_row(&limit.of, &paced).unwrap();
            prop_assert_eq!(codec::rate(&row).unwrap(), (limit.of, paced));
        }
        let queue = QueuePolicy { tenant: tenant.clone(), queue: name.clone(), paused, weight };
        prop_assert_eq!(codec::queue(&codec::queue_row(&queue).unwrap()).unwrap(), queue);
        let schedule = Schedule { tenant, name, rule: Arc::from(rule), spec: Arc::new(spec), last_fired };
        prop_assert_eq!(codec::schedule(&codec::schedule_row(&schedule).unwrap()).unwrap(), schedule);
    }

    #[test]
    fn small_rows_come_back(
        tenant in name(),
        queue in name(),
        numbers in any::<[u64; 7]>(),
        of in any::<(u64, u64, i64)>(),
        id in any::<[u8; 16]>(),
        state in state(),
    ) {
        let (tenant, counts) = (Tenant::from(tenant), Counts::from_numbers(numbers));
        let back = codec::counts(&codec::counts_row(&tenant, &queue, &counts).unwrap()).unwrap();
        prop_assert_eq!(back.counts.of(state), numbers[state as usize]);
        prop_assert_eq!(back, QueueCounts { tenant: tenant.clone(), queue, counts });
        prop_assert_eq!(codec::number(&codec::number_row(of.0).unwrap()).unwrap(), of.0);
        let id = hodei_core::JobId::from_bytes(id);
        prop_assert_eq!(codec::id(&codec::id_row(id).unwrap()).unwrap(), id);
        let owner = codec::encode(&OwnerRow { incarnation: of.0, expires_at: of.2 }, 0).unwrap();
        let owner: OwnerRow = codec::decode(&owner).unwrap();
        prop_assert_eq!((owner.incarnation, owner.expires_at), (of.0, of.2));
        let (number, incarnation, expires_at) = of;
        let row = TermRow { number, owner: tenant.as_str(), incarnation, expires_at };
        let row = codec::encode(&row, 0).unwrap();
        let term: TermRow<'_> = codec::decode(&row).unwrap();
        prop_assert_eq!((term.number, term.owner), (number, tenant.as_str()));
        prop_assert_eq!((term.incarnation, term.expires_at), (incarnation, expires_at));
    }
}

#[test]
fn edges_come_back() {
    use hodei_core::job::Requires;
    for edge in Requires::ALL.map(|requires| [(requires, false), (requires, true)]).concat() {
        assert_eq!(codec::edge(&codec::edge_row(edge.0, edge.1).unwrap()).unwrap(), edge);
    }
    let unknown = codec::encode(&(7_u8, false), 0).unwrap();
    assert_eq!(codec::edge(&unknown).unwrap_err().kind(), hodei_core::ErrorKind::Corrupt);
}
