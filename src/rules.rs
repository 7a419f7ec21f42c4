//! The rules of failover, and of the data on volumes, that a line of code carries out, each by name.
//!
//! Every rule is there because without it an acknowledged write gets lost, two histories are served, data is thrown away
//! too soon, or the cluster stands still. The simulation shows that: it breaks them one at a time and finds the harm. The
//! product keeps all of them: outside of the tests of this crate there is no other [`Rules`] than
//! [`Rules::LAW`], and every question is answered with yes.

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    // === decided by the scheduler ===
    /// In an election only those voters count whose data was read after they promised the epoch.
    UnreadDoesNotCount,
    /// A master is elected by `|V| - k` reports and not by fewer.
    QuorumElects,
    /// The highest marker wins, whatever else the others hold.
    HighestMarkerWins,
    /// A voter whose data was lost does not count.
    LostDataDoesNotVote,
    /// It counts again after it has executed a canary that was begun after the loss was seen.
    RejoinsAfterCanary,
    /// A voter that is to leave is kept from receiving before.
    LeaverIsBarred,
    /// Voters leave, and `k_floor` grows, after the master has confirmed its terms.
    MasterConfirmsTerms,
    /// ... and after a canary that was begun under these terms was acknowledged.
    CanaryUnderTerms,
    /// Where no acknowledgement is waited for, a successor waits until its predecessors have certainly ended.
    SuccessorWaitsForLease,

    /// An agent is given away for maintenance when enough voters for a quorum are elsewhere.
    QuorumOutlastsMaintenance,
    /// ... and when no master is there.
    MasterLeavesAgentFirst,

    /// A slot on which a task was heard of is not given up because it does not show up.
    UsedSlotIsKept,
    /// The volumes of a deleted cluster are kept until their time has come.
    KeptUntilItsTime,
    /// That they are to be destroyed is stored before the first one is.
    IntentionComesFirst,

    /// A master that is to be restarted hands over first.
    MasterHandsOverFirst,
    /// A member is restarted when enough voters for a quorum are elsewhere, those not counted whose agents are to be taken away.
    QuorumOutlastsRestart,

    /// A member that is to be replaced gives nothing up before its replacement is in its place.
    ReplacementComesFirst,
    /// For a cluster whose automation is paused nothing is decided.
    PausedIsLeftAlone,

    // === decided by the executor ===
    /// A promise is stored before the epoch is acted on or reported.
    PromiseComesFirst,
    /// No epoch below the promised one is obeyed.
    LowerEpochsAreRefused,
    /// A master of an earlier epoch is killed before anything else is done.
    DeposedIsKilled,
    /// A master waits for as many acknowledgements as the voters need.
    MasterWaitsForVoters,
    /// A master opens when the marker of its epoch is acknowledged.
    MarkerBeforeOpening,
    /// Only a voter whose data is stored acknowledges.
    OnlyVotersAcknowledge,
    /// What is held is compared with the history before another master is followed.
    ComparedBeforeFollowing,
    /// What is received is applied before another master is followed.
    AppliedBeforeFollowing,
    /// Nothing is set aside before the marker of the epoch is acknowledged.
    KeptUntilOpened,
    /// A master that waits for acknowledgements ends by SIGKILL, never by a graceful end.
    MasterIsNotTerminated,
    /// A master out of touch with ZooKeeper ends when its lease does.
    LeaseEnds,
    /// A master that waits for no acknowledgement opens when a watchdog guards it.
    WatchdogGuards,
    /// A deposed master stays alive only if it is read-only under a switchover and holds what it held then.
    OnlyClosedYields,
    /// A master that was closed for a switchover and has promised a later epoch does not open again.
    ClosedStaysClosed,
}

/// Which rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    #[cfg(test)]
    broken: Option<Rule>,
}

impl Rules {
    /// All of them.
    pub const LAW: Self = Self {
        #[cfg(test)]
        broken: None,
    };

    /// All but one.
    #[cfg(test)]
    pub(crate) const fn without(rule: Rule) -> Self {
        Self { broken: Some(rule) }
    }

    /// Whether a rule holds. It is asked in the one place where the rule is carried out.
    #[cfg(test)]
    pub fn holds(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    /// Whether a rule holds. It is asked in the one place where the rule is carried out.
    #[cfg(not(test))]
    pub const fn holds(self, _: Rule) -> bool {
        true
    }
}
