//! The greater faults: who dies, who stands still, who is cut off, and when all of that is over.

use std::time::Duration;

use hodei_core::Timestamp;

use super::agent::AgentModel;
use super::desk::Desk;
use super::host::Host;
use super::network::Place;
use super::options::Mode;
use super::world::{Event, World};

/// One of the greater faults.
#[derive(Clone, Copy, Debug)]
enum Kind {
    NodeDies,
    NodeDrains,
    AgentDies,
    DispatcherDies,
    DispatcherStalls,
    Freeze,
    Cut,
    Clock,
    Outage,
}

impl<A: AgentModel> World<A> {
    pub(super) fn next_trouble(&mut self) {
        if self.kinds().is_empty() {
            return;
        }
        let wait = self.chance.between(Duration::ZERO, self.options.faults.apart * 2);
        self.after(wait, Event::Trouble);
    }

    fn kinds(&self) -> Vec<Kind> {
        let faults = &self.options.faults;
        let all = [
            (faults.node_crashes, Kind::NodeDies),
            (faults.node_drains, Kind::NodeDrains),
            (faults.agent_crashes, Kind::AgentDies),
            (faults.dispatcher_deaths, Kind::DispatcherDies),
            (faults.stalls, Kind::DispatcherStalls),
            (faults.freezes, Kind::Freeze),
            (faults.partitions, Kind::Cut),
            (faults.clocks, Kind::Clock),
            (faults.outages, Kind::Outage),
        ];
        all.into_iter().filter(|(on, _)| *on).map(|(_, kind)| kind).collect()
    }

    pub(super) fn trouble(&mut self) {
        if self.healed {
            return;
        }
        self.next_trouble();
        let kinds = self.kinds();
        let Some(kind) = self.chance.pick(&kinds).copied() else { return };
        self.figures.faults += 1;
        let (node, agent) = (self.chance.place(self.nodes.len()), self.chance.place(self.hosts.len()));
        match kind {
            Kind::NodeDies => self.node_dies(node),
            Kind::NodeDrains => self.drain_node(node),
            Kind::AgentDies => {
                if self.hosts[agent].up.is_some() {
                    self.agent_dies(agent);
                    let wait = self.chance.millis(50, 12_000);
                    self.after(wait, Event::AgentBoot { agent });
                }
            }
            Kind::DispatcherDies => self.one_dispatcher_dies(node),
            Kind::DispatcherStalls => self.one_dispatcher_stalls(node),
            Kind::Freeze => self.freeze(node, agent),
            Kind::Cut => self.cut(node, agent),
            Kind::Clock => self.step_clock(node),
            Kind::Outage => {
                let until = self.now.saturating_add(self.chance.millis(50, 5_000));
                self.tell(format_args!("store: answers nobody"));
                self.network.outage(until);
                self.door.store().inner().restart();
            }
        }
    }

    fn node_dies(&mut self, node: usize) {
        if self.nodes[node].up.is_none() {
            return;
        }
        self.crash(node);
        let wait = self.chance.millis(50, 12_000);
        self.after(wait, Event::Boot { node });
        let hosts = self.hosts.iter().enumerate();
        let within = |(_, host): &(usize, &Host<A>)| host.home == node && host.up.is_some();
        let within: Vec<usize> = hosts.filter(within).map(|(agent, _)| agent).collect();
        if self.options.named {
            for agent in within {
                self.agent_dies(agent);
                self.after(wait, Event::AgentBoot { agent });
            }
        }
    }

    /// One of the dispatchers of a node; nobody where it is down.
    fn one_of(&mut self, node: usize) -> Option<Desk> {
        let life = self.nodes[node].life;
        let seats: Vec<usize> = self.nodes[node].up.as_ref()?.seats().collect();
        let seat = self.chance.pick(&seats).copied()?;
        Some(Desk { node, life, seat })
    }

    /// A dispatcher that stands still rather than one that does not: others wait for what it has.
    fn one_dispatcher_dies(&mut self, node: usize) {
        let Some(drawn) = self.one_of(node) else { return };
        let seats = (0..self.options.dispatchers).map(|seat| Desk { seat, ..drawn });
        let still: Vec<Desk> = seats.filter(|desk| self.still(*desk) > self.now).collect();
        let desk = self.chance.pick(&still).copied().unwrap_or(drawn);
        self.dispatcher_dies(desk);
    }

    fn one_dispatcher_stalls(&mut self, node: usize) {
        let until = self.now.saturating_add(self.chance.millis(10, 4_000));
        let Some(desk) = self.one_of(node) else { return };
        if let Some(dispatcher) = self.dispatcher(desk) {
            dispatcher.stalled = until;
        }
        self.tell(format_args!("node-{node}/{}: stands still", desk.seat));
    }

    fn freeze(&mut self, node: usize, agent: usize) {
        let until = self.now.saturating_add(self.chance.millis(50, 12_000));
        if self.chance.chance(500) {
            self.nodes[node].frozen = until;
            self.tell(format_args!("node-{node}: stands still"));
        } else {
            self.hosts[agent].frozen = until;
            self.hosts[agent].late = self.hosts[agent].late.max(until);
            self.tell(format_args!("agent-{agent}: stands still"));
        }
    }

    fn cut(&mut self, node: usize, agent: usize) {
        let until = self.now.saturating_add(self.chance.millis(200, 15_000));
        let (node, agent) = (Place::Node(node), Place::Agent(agent));
        let (a, b) = if self.chance.chance(600) { (node, agent) } else { (node, Place::Store) };
        let ways: &[(Place, Place)] = match self.chance.below(3) {
            0 => &[(a, b)],
            1 => &[(b, a)],
            _ => &[(a, b), (b, a)],
        };
        for (from, to) in ways {
            self.tell(format_args!("network: nothing passes from {from:?} to {to:?}"));
            self.network.cut(*from, *to, until);
        }
    }

    fn step_clock(&mut self, node: usize) {
        let far = if self.chance.chance(300) { 3_600_000_000 } else { 10_000_000 };
        let by = self.chance.below(2 * far).cast_signed() - far.cast_signed();
        self.nodes[node].off = self.nodes[node].off.saturating_add(by);
        self.tell(format_args!("node-{node}: the wall clock jumps by {by} us"));
    }

    /// Faults are over: whoever is down starts, whatever was cut passes, whoever stood still goes on.
    pub(super) fn heal(&mut self) {
        self.tell(format_args!("the faults are over"));
        self.healed = true;
        self.healed_at = Some(self.now);
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].frozen = Timestamp::EPOCH;
            if let Some(live) = &mut self.nodes[node].up {
                live.desks.iter_mut().flatten().for_each(|desk| desk.stalled = Timestamp::EPOCH);
            }
            if self.nodes[node].up.is_none() {
                self.at(self.now, Event::Boot { node });
            }
        }
        for agent in 0..self.hosts.len() {
            self.hosts[agent].frozen = Timestamp::EPOCH;
            self.at(self.now, Event::AgentBoot { agent });
        }
        if self.options.mode == Mode::Liveness {
            self.relent();
        }
    }

    /// Lets the workload take back what holds work up, once no client is about to set it.
    pub(super) fn relent(&mut self) {
        if self.acting > 0 {
            return self.after(Duration::from_millis(500), Event::Relent);
        }
        let (load, mut scene) = self.scene();
        let acts = load.relent(&mut scene);
        acts.into_iter().for_each(|act| self.acts(act));
    }
}
