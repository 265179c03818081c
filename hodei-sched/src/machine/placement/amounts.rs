//! Amounts of resources as vectors of numbers: what the application names is numbered once.

use std::collections::HashMap;

use hodei_core::Name;
use hodei_core::job::Resources;

/// CPU, memory, GPUs.
const FIXED: usize = 3;

/// The numbers of the resources that workers offer beside CPU, memory and GPUs.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<Name, u32>);

impl Names {
    /// Numbers what an offer names; whether anything of it is new.
    pub(super) fn learn(&mut self, offered: &Resources) -> bool {
        let before = self.0.len();
        for (name, _) in offered.customs() {
            let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
            self.0.entry(name.clone()).or_insert(next);
        }
        self.0.len() > before
    }

    /// What is needed, by name, with what there is of it.
    pub(super) fn amounts(&self, needs: &Resources, there: &Amounts) -> Vec<(String, u64, u64)> {
        let fixed = ["cpu_millis", "memory", "gpus"].into_iter().zip(fixed(needs)).zip(there.fixed);
        let fixed = fixed.map(|((name, need), free)| (name.to_owned(), need, free));
        let custom = needs.named().map(|(name, need)| {
            let free = self.0.get(name).map_or(0, |number| there.custom(*number));
            (name.as_str().to_owned(), need, free)
        });
        fixed.chain(custom).collect()
    }
}

/// What a worker has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    fixed: [u64; FIXED],
    custom: Vec<u64>,
}

/// What a job needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    fixed: [u64; FIXED],
    custom: Vec<(u32, u64)>,
    /// Something that no worker has ever offered.
    unknown: bool,
}

impl Need {
    pub(super) fn of(resources: &Resources, names: &Names) -> Self {
        let mut custom = Vec::with_capacity(resources.customs().len());
        let mut unknown = false;
        for (name, amount) in resources.named() {
            match names.0.get(name) {
                Some(number) => custom.push((*number, amount)),
                None => unknown = true,
            }
        }
        Self { fixed: fixed(resources), custom, unknown }
    }

    /// The same without what no worker has ever offered.
    pub(super) fn known(self) -> Self {
        Self { unknown: false, ..self }
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// The parts of which something is needed, with what another amount has of each.
    fn parts<'a>(&'a self, of: &'a Amounts) -> impl Iterator<Item = (u64, u64)> + 'a {
        let fixed = self.fixed.iter().copied().zip(of.fixed);
        let custom = self.custom.iter().map(|(number, need)| (*need, of.custom(*number)));
        fixed.chain(custom).filter(|(need, _)| *need > 0)
    }
}

impl Amounts {
    pub(super) fn of(resources: &Resources, names: &Names) -> Self {
        let mut custom = vec![0; resources.customs().len()];
        for (name, amount) in resources.customs() {
            let Some(number) = names.0.get(name) else { continue };
            let at = *number as usize;
            custom.resize(custom.len().max(at + 1), 0);
            custom[at] = amount;
        }
        Self { fixed: fixed(resources), custom }
    }

    fn custom(&self, number: u32) -> u64 {
        self.custom.get(number as usize).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn has(&self, need: &Need) -> bool {
        let fixed = self.fixed.iter().zip(need.fixed).all(|(have, need)| *have >= need);
        fixed
            && !need.unknown
            && (need.custom.is_empty() || need.custom.iter().all(|(n, need)| self.custom(*n) >= *need))
    }

    /// How often a need fits; `u32::MAX` when nothing is needed.
    pub(super) fn times(&self, need: &Need) -> u32 {
        if need.unknown {
            return 0;
        }
        let fits = need.parts(self).map(|(need, have)| have / need).min();
        fits.map_or(u32::MAX, |fits| u32::try_from(fits).unwrap_or(u32::MAX))
    }

    /// Takes a need out so often. The caller has checked that it is there.
    pub(super) fn take(&mut self, need: &Need, times: u32) {
        let times = u64::from(times);
        for (have, need) in self.fixed.iter_mut().zip(need.fixed) {
            *have -= need * times;
        }
        for (number, need) in &need.custom {
            self.custom[*number as usize] -= need * times;
        }
    }

    /// Puts a need back.
    pub(super) fn give(&mut self, need: &Need) {
        for (have, need) in self.fixed.iter_mut().zip(need.fixed) {
            *have += need;
        }
        for (number, need) in &need.custom {
            self.custom[*number as usize] += need;
        }
    }

    /// Whether something more can be taken without touching what somebody else waits for: of each part that both need,
    /// enough is free for both; so whatever the other one lacks is lacking in another part.
    pub(super) fn spares(&self, more: &Need, waits: &Need) -> bool {
        let custom =
            |need: &Need, n: u32| need.custom.iter().find(|(m, _)| *m == n).map_or(0, |(_, need)| *need);
        let fixed = self.fixed.iter().zip(more.fixed).zip(waits.fixed);
        let mut parts = fixed.map(|((have, more), waits)| (*have, more, waits));
        let spare = |(have, more, waits): (u64, u64, u64)| {
            more == 0 || waits == 0 || have.checked_sub(more).is_some_and(|rest| rest >= waits)
        };
        parts.all(spare)
            && more.custom.iter().all(|(n, more)| spare((self.custom(*n), *more, custom(waits, *n))))
    }

    /// How many times more can be taken so that each of them [spares](Self::spares) what somebody else waits for.
    pub(super) fn times_beside(&self, more: &Need, waits: &Need) -> u32 {
        let custom =
            |need: &Need, n: u32| need.custom.iter().find(|(m, _)| *m == n).map_or(0, |(_, need)| *need);
        let times = |(have, more, waits): (u64, u64, u64)| match (more, waits) {
            (0, _) | (_, 0) => u64::MAX,
            (more, waits) => have.saturating_sub(waits) / more,
        };
        let fixed = self.fixed.iter().zip(more.fixed).zip(waits.fixed);
        let fixed = fixed.map(|((have, more), waits)| times((*have, more, waits)));
        let custom = more.custom.iter().map(|(n, more)| times((self.custom(*n), *more, custom(waits, *n))));
        let least = fixed.chain(custom).min().unwrap_or(u64::MAX);
        u32::try_from(least).unwrap_or(u32::MAX)
    }

    /// How much of what is needed is lacking, of the greatest part: thousandths of the need; nothing is 0.
    pub(super) fn lack(&self, need: &Need) -> u64 {
        let lack = |(need, have): (u64, u64)| need.saturating_sub(have).saturating_mul(1_000) / need;
        if need.unknown { 1_000 } else { need.parts(self).map(lack).max().unwrap_or(0) }
    }

    /// What is free once a need is met, in 1,024ths of what there is, over all parts of which there is any.
    pub(super) fn rest(&self, need: &Need, capacity: &Self) -> u64 {
        let part =
            |have: u64, need: u64, all: u64| (have.saturating_sub(need) << 10).checked_div(all).unwrap_or(0);
        let fixed = (0..FIXED).map(|n| part(self.fixed[n], need.fixed[n], capacity.fixed[n]));
        let custom = need.custom.iter().map(|(n, need)| part(self.custom(*n), *need, capacity.custom(*n)));
        fixed.chain(custom).sum()
    }
}

fn fixed(resources: &Resources) -> [u64; FIXED] {
    [resources.cpu_millis, resources.memory, u64::from(resources.gpus)]
}
