//! What jobs ask for, as classes: each is looked up among the workers once, and kept.

use std::collections::HashMap;
use std::sync::Arc;

use hodei_core::Tenant;
use hodei_core::job::{Request, RequestClass, Selector, Share};

use super::amounts::Need;
use super::bits::Bits;
use super::fleet::{Class, Fleet, Worker};
use super::group::Place;
use super::rule::Rule;
use crate::queue::ClassId;

/// How many classes may be remembered that nothing asks for any more.
const IDLE_CLASSES_MAX: usize = 1_024;

/// Which class a number is.
#[derive(Debug)]
pub(super) enum Known {
    /// The same for the jobs of all tenants.
    Class(u32),
    /// One for each tenant: its jobs say something of groups, which are a tenant's own.
    ByTenant(HashMap<Tenant, u32>),
}

impl Class {
    /// What must apply to its workers, by the rule and by what its jobs say.
    pub(super) fn required<'c>(&'c self, rule: &'c Rule) -> impl Iterator<Item = &'c Selector> + Clone {
        rule.require.iter().chain(self.place().map_or(&[][..], |place| &place.require))
    }

    /// What applies to the workers that come first.
    pub(super) fn preferences<'c>(&'c self, rule: &'c Rule) -> impl Iterator<Item = &'c Selector> + Clone {
        rule.prefer.iter().chain(self.place().map_or(&[][..], |place| &place.prefer))
    }
}

impl Fleet {
    /// Adds a rule; rule 0 places anywhere.
    pub fn add_rule(&mut self, rule: Rule) -> u32 {
        self.rules.push(Arc::new(rule));
        u32::try_from(self.rules.len() - 1).unwrap_or(u32::MAX)
    }

    /// Changes a rule, for what is placed from now on.
    pub fn set_rule(&mut self, number: u32, rule: Rule) {
        self.rules[number as usize] = Arc::new(rule);
        let changed: Vec<u32> = self.numbers(|class| class.rule == number).collect();
        for worker in &mut self.workers {
            worker.shut_out.retain(|class| !changed.contains(class));
        }
        changed.into_iter().for_each(|class| self.look(class));
    }

    /// Numbers what jobs ask for under a rule. The number holds as long as a job is counted for it, or until the next
    /// call of this.
    pub fn class(&mut self, request: &Request, rule: u32) -> ClassId {
        self.class_for(&Tenant::default(), request, rule)
    }

    /// As [`Fleet::class`], for jobs of a tenant: what they say of groups, they say of his.
    pub fn class_for(&mut self, tenant: &Tenant, request: &Request, rule: u32) -> ClassId {
        self.class_of(tenant, request.class(), rule, || Arc::new(request.clone()))
    }

    /// As [`Fleet::class`], where the hash of the request is known.
    pub(crate) fn class_of(
        &mut self,
        tenant: &Tenant,
        number: RequestClass,
        rule: u32,
        request: impl FnOnce() -> Arc<Request>,
    ) -> ClassId {
        if let Some(class) = self.known_class(tenant, number, rule) {
            return class;
        }
        let request = request();
        if request.share() == Share::NONE {
            return ClassId(self.new_class(tenant, number, rule, request));
        }
        // Whom a job has its turns with makes no difference to a worker.
        let plain = Arc::new(request.without_share());
        let plainly = plain.class();
        let known = self.known_class(tenant, plainly, rule);
        let class = known.unwrap_or_else(|| ClassId(self.new_class(tenant, plainly, rule, plain)));
        self.remember(tenant, number, rule, class.0);
        class
    }

    /// Adds a class under a number that is not known.
    fn new_class(&mut self, tenant: &Tenant, number: RequestClass, rule: u32, request: Arc<Request>) -> u32 {
        if self.classes.len() - self.free_classes.len() > IDLE_CLASSES_MAX {
            self.forget_classes();
        }
        let need = Need::of(&request.resources, &self.names);
        let class = Class {
            workers: request.resources.worker_count(),
            place: Place::of(&request.resources, tenant, &mut self.groups),
            request,
            need,
            rule,
            able: Bits::default(),
            room: Bits::default(),
            preferred: Bits::default(),
            uses: 0,
        };
        let at = match self.free_classes.pop() {
            Some(at) => {
                self.classes[at as usize] = Some(class);
                at
            }
            None => {
                self.classes.push(Some(class));
                u32::try_from(self.classes.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.remember(tenant, number, rule, at);
        self.look(at);
        at
    }

    /// Notes which class a number is.
    fn remember(&mut self, tenant: &Tenant, number: RequestClass, rule: u32, class: u32) {
        let is_known = self.classes[class as usize].as_ref();
        if is_known.and_then(Class::place).is_none_or(Place::names_no_group) {
            self.by_number.insert((number, rule), Known::Class(class));
            return;
        }
        let known = self.by_number.entry((number, rule)).or_insert_with(|| Known::ByTenant(HashMap::new()));
        if let Known::ByTenant(classes) = known {
            classes.insert(tenant.clone(), class);
        }
    }

    /// The number of a class that is known already.
    pub(crate) fn known_class(&self, tenant: &Tenant, number: RequestClass, rule: u32) -> Option<ClassId> {
        match self.by_number.get(&(number, rule))? {
            Known::Class(class) => Some(ClassId(*class)),
            Known::ByTenant(classes) => classes.get(tenant).copied().map(ClassId),
        }
    }

    /// Counts a job for a class, which keeps its number meanwhile.
    pub fn count(&mut self, class: ClassId) {
        self.known(class).uses += 1;
    }

    /// Counts a job no more.
    pub fn discount(&mut self, class: ClassId) {
        let class = self.known(class);
        class.uses = class.uses.saturating_sub(1);
    }

    fn known(&mut self, class: ClassId) -> &mut Class {
        self.classes[class.0 as usize].as_mut().expect("a class is there as long as jobs are counted for it")
    }

    pub(super) fn numbers(&self, wanted: impl Fn(&Class) -> bool) -> impl Iterator<Item = u32> {
        (0..)
            .zip(&self.classes)
            .filter(move |(_, class)| class.as_ref().is_some_and(&wanted))
            .map(|(at, _)| at)
    }

    /// Decides anew to which workers a class could go.
    fn look(&mut self, at: u32) {
        let Some(class) = self.classes[at as usize].as_mut() else { return };
        let rule = &self.rules[class.rule as usize];
        class.able = if class.place().is_some_and(|place| place.unknown) {
            Bits::default()
        } else {
            self.shapes.able(&class.request.runs, &class.need, class.required(rule))
        };
        for (worker, _) in (0..).zip(&self.workers).filter(|(_, worker)| worker.draining) {
            class.able.clear(worker);
        }
        class.room = class.able.clone();
        class.preferred = Bits::default();
        if class.preferences(rule).next().is_some() {
            class.preferred = self.shapes.selected(class.preferences(rule));
            class.preferred.keep(&class.able);
        }
    }

    /// Decides anew whether a class could go to a worker, were it idle, and whether it had rather go there.
    pub(super) fn decide_for(&mut self, worker: u32, class: u32) {
        let Some(known) = self.classes[class as usize].as_ref() else { return };
        let Worker { shape, draining, .. } = self.workers[worker as usize];
        let able = !draining && self.could_run(shape, known);
        let rule = &self.rules[known.rule as usize];
        let prefers = known.preferences(rule).next().is_some();
        let comes_first = prefers && self.shapes.suits(shape, known.preferences(rule));
        if let Some(class) = self.classes[class as usize].as_mut() {
            class.able.put(worker, able);
            class.room.put(worker, able);
            class.preferred.put(worker, able && comes_first);
        }
    }

    /// Says whether a worker of a shape could run jobs of a class, were it idle.
    pub(super) fn could_run(&self, shape: u32, class: &Class) -> bool {
        let rule = &self.rules[class.rule as usize];
        let known = class.place().is_none_or(|place| !place.unknown);
        known && self.shapes.fits(shape, &class.request.runs, &class.need, class.required(rule))
    }

    /// Something is offered that was not known before: classes that asked for it in vain are looked at again.
    pub(super) fn learn(&mut self) {
        for at in self.numbers(|class| class.need.is_unknown()).collect::<Vec<u32>>() {
            if let Some(class) = self.classes[at as usize].as_mut() {
                class.need = Need::of(&class.request.resources, &self.names);
            }
        }
    }

    fn forget_classes(&mut self) {
        let idle = |class: &Class| class.uses == 0;
        for at in self.numbers(idle).collect::<Vec<u32>>() {
            if let Some(place) = self.classes[at as usize].take().and_then(|class| class.place) {
                self.groups.forget(&place);
            }
            self.free_classes.push(at);
        }
        let classes = &self.classes;
        self.by_number.retain(|_, known| match known {
            Known::Class(class) => classes[*class as usize].is_some(),
            Known::ByTenant(of) => {
                of.retain(|_, class| classes[*class as usize].is_some());
                !of.is_empty()
            }
        });
        for worker in &mut self.workers {
            worker.shut_out.retain(|class| classes[*class as usize].is_some());
        }
    }
}
