//! The offers of one look, and what launches leave of them.
//!
//! An offer pays for as many members as it has room for, of one cluster or of several. What the first takes is no
//! longer there for the second: neither its port nor its memory.

use std::collections::BTreeMap;

use super::placement::{Ground, Launch, Offer};

/// The offers that can be used, those of which something was taken with what is left of them.
#[derive(Debug)]
pub struct Pool<'a> {
    whole: BTreeMap<&'a str, &'a Offer>,
    /// By the offer's id, as in `whole`.
    rest: BTreeMap<String, Offer>,
}

impl<'a> Pool<'a> {
    /// All of these offers, untouched.
    pub fn of(offers: &'a BTreeMap<String, Offer>) -> Self {
        let whole = offers.iter().map(|(id, offer)| (id.as_str(), offer));
        Self {
            whole: whole.collect(),
            rest: BTreeMap::new(),
        }
    }

    /// What can still be had, offer by offer.
    pub fn offers(&self) -> impl Iterator<Item = &Offer> + Clone {
        self.whole.values().copied().chain(self.rest.values())
    }

    /// Takes what a launch costs out of its offer.
    pub fn take(&mut self, launch: &Launch) {
        let id = launch.offer.id.as_str();
        let whole = self.whole.remove(id).cloned();
        if let Some(mut offer) = self.rest.remove(id).or(whole) {
            take_from(&mut offer, launch);
            self.rest.insert(offer.id.clone(), offer);
        }
    }

    /// The offers of which nothing was taken. The others are used up by their launches: what is left of them
    /// is offered anew.
    pub fn into_untouched(self) -> BTreeMap<&'a str, &'a Offer> {
        self.whole
    }
}

fn take_from(offer: &mut Offer, launch: &Launch) {
    match &launch.ground {
        Ground::Sandbox | Ground::New(_) => {
            offer.cpus -= launch.size.cpus();
            offer.mem_mib -= launch.size.mem_mib() as f64;
            offer.disk_mib -= launch.size.disk_mib() as f64;
            offer.ports = without(&offer.ports, launch.task.port);
        }
        Ground::Reserved(id) | Ground::Volume(id) => offer.slots.retain(|slot| slot.id != *id),
    }
}

/// Ranges of ports, both ends included, without one port.
fn without(ranges: &[(u16, u16)], port: u16) -> Vec<(u16, u16)> {
    let cut = |&(begin, end): &(u16, u16)| {
        if (begin..=end).contains(&port) {
            let below = (port > begin).then(|| (begin, port - 1));
            let above = (port < end).then(|| (port + 1, end));
            [below, above]
        } else {
            [Some((begin, end)), None]
        }
    };
    ranges.iter().flat_map(cut).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_cut_out_of_its_range() {
        let ranges = [(10, 12), (20, 20), (1, u16::MAX)];
        assert_eq!(without(&ranges[..2], 11), [(10, 10), (12, 12), (20, 20)]);
        assert_eq!(without(&ranges[..2], 10), [(11, 12), (20, 20)]);
        assert_eq!(without(&ranges[..2], 20), [(10, 12)]);
        assert_eq!(without(&ranges[2..], u16::MAX), [(1, u16::MAX - 1)]);
        assert_eq!(without(&ranges[..2], 15), ranges[..2]);
    }
}
