//! A site that is away for longer than any tombstone would have to live (F21), while it and all others write and purge: at
//! its return nothing that was purged comes back, and nothing that it wrote meanwhile is lost.
use super::dice::Dice;
use super::fault::Fault;
use super::world::World;

/// 30 days are what a tombstone would have to live; it is away for longer.
const DAYS: u64 = 35;
const DAY_MS: u64 = 24 * 3_600_000;
/// What of a day is lived through; for the rest of it everything stands still.
const AWAKE_MS: u64 = 60_000;

impl World {
    /// The site of the options leaves; its return is part of the healing.
    pub fn stay_away(&mut self) -> Result<(), String> {
        let Some(away) = self.options.away else { return Ok(()) };
        let (sites, mut dice) = (self.options.sites, Dice::new(self.options.seed ^ 0x0a_11a7));
        for other in (0..sites).filter(|other| *other != away) {
            for way in [(away, other), (other, away)] {
                *self.parted.entry(way).or_default() += 1;
            }
        }
        self.lose_sight_of(away);
        for _ in 0..DAYS {
            for _ in 0..dice.range(1, 4) {
                let site = dice.range(0, sites as u64) as usize;
                self.write(site, Dice::new(dice.bits()))?;
                self.purge(site, away, &mut dice)?;
            }
            self.pass_until(self.now + AWAKE_MS)?;
            self.sleep(DAY_MS - AWAKE_MS);
        }
        self.faults.fire(Fault::LongAway);
        Ok(())
    }

    /// A client purges any live version at `site`.
    fn purge(&mut self, site: usize, away: usize, dice: &mut Dice) -> Result<(), String> {
        let now = self.local(site);
        let here = &mut self.sites[site];
        let live: Vec<_> = here.store.versions().map(|(_, v)| v).filter(|v| v.is_live()).collect();
        let Some(one) = live.get(dice.bits() as usize % live.len().max(1)).filter(|_| here.is_up) else {
            return Ok(());
        };
        let (key, id) = (one.key.clone(), one.id);
        // A guard forbids it.
        let Some(change) = here.store.purge(now, &key, id) else { return Ok(()) };
        if site != away && self.sites[away].store.get(&key, id).is_some_and(|held| held.is_live()) {
            self.faults.fire(Fault::PurgedMeanwhile);
        }
        self.acked(site, &change)
    }
}
