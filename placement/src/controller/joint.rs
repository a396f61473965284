//! What is proposed to two operators: the words that say what it does and what it costs, so that both
//! decide on the same; and the signed list of what was lost by it.

use trefoil_protocol::ids::{Epoch, OperatorId, StoreId, VersionId, VolumeId};
use trefoil_protocol::message::admin::AdminAnswer;
use trefoil_protocol::message::approval::JointAction;
use trefoil_protocol::message::loss::{LOSS_PAGE_MAX, LostStoreView, LostVersion};

use crate::controller::Turn;
use crate::controller::countersign::Countersigning;
use crate::event::{Answer, RequestId};
use crate::state::{Command, ProposalDraft, State, VolumeRecord};

/// A proposal with what both operators are shown.
pub(crate) fn propose(state: &State, by: OperatorId, action: JointAction, reason: String) -> Command {
    let shown = match action {
        JointAction::AcceptLoss { volume, store, .. } => {
            state.volumes.get(volume).map_or_else(Vec::new, |record| loss(state, record, store))
        }
        JointAction::Discard { volume, store } => discard(state, volume, store),
    };
    Command::Propose(ProposalDraft { action, by, reason, shown })
}

/// Signs what a volume went on without, at once or with the second signature.
pub(crate) fn sign_loss(
    turn: &mut Turn<'_>,
    countersigning: &mut Countersigning,
    id: RequestId,
    volume: VolumeId,
    epoch: Epoch,
) {
    let now = turn.state.clock.now();
    let refused = match (turn.state.loss_statement(volume, epoch, now), turn.keyring) {
        (Some(statement), Some(_)) => return countersigning.loss(turn, id, statement),
        // A witness signs nothing.
        (Some(_), None) => AdminAnswer::NotLeader { leader: None },
        (None, _) => no_loss(volume, epoch),
    };
    turn.out.answer(id, Answer::Admin(refused));
}

/// A page of the versions that are known to be lost.
pub(crate) fn lost_versions(
    state: &State,
    volume: VolumeId,
    epoch: Epoch,
    after: Option<VersionId>,
) -> AdminAnswer {
    let Some(loss) = state.volumes.get(volume).and_then(|record| record.loss_of(epoch)) else {
        return no_loss(volume, epoch);
    };
    let mut versions: Vec<LostVersion> = loss.versions(after).take(LOSS_PAGE_MAX + 1).copied().collect();
    let more = versions.len() > LOSS_PAGE_MAX;
    versions.truncate(LOSS_PAGE_MAX);
    AdminAnswer::LostVersions { versions, more }
}

fn no_loss(volume: VolumeId, epoch: Epoch) -> AdminAnswer {
    AdminAnswer::Refused(format!("volume {volume} did not go on without a store in epoch {epoch}"))
}

/// What a store gives up, as it told.
fn discard(state: &State, volume: VolumeId, store: StoreId) -> Vec<String> {
    let record = state.volumes.get(volume);
    let loss = record.and_then(|record| record.loss_views().next());
    let told = loss.and_then(|loss| loss.stores.into_iter().find(|told| told.store == store));
    let what = match told.filter(|told| told.heard) {
        Some(told) if told.totals.versions() == 0 => "it told that it has nothing alone".to_owned(),
        Some(LostStoreView { totals, .. }) => format!(
            "it told of {} versions that the volume lacks or has otherwise: {} put with {} bytes, {} deleted, {} \
             brought back, the oldest at {}; `trefoil loss list {volume}` names them",
            totals.versions(),
            totals.puts,
            totals.bytes,
            totals.deletes,
            totals.undeletes,
            totals.oldest.map_or_else(String::new, |oldest| oldest.to_string()),
        ),
        None => {
            "no report could be made, because the store is not there: what it has stays unknown".to_owned()
        }
    };
    let unreadable = told.filter(|told| told.unreadable > 0);
    let unreadable = unreadable.map(|told| format!("{} more records of it cannot be read", told.unreadable));
    let first = format!("{} gives up all that it has of volume {volume}, for ever", placed(state, store));
    let last = "it may hold the volume anew afterwards".to_owned();
    [first, what].into_iter().chain(unreadable).chain([last]).collect()
}

/// What going on with `store` may lose.
fn loss(state: &State, record: &VolumeRecord, store: StoreId) -> Vec<String> {
    let config = &record.config;
    let (volume, tenant, epoch) = (config.volume, config.tenant, config.epoch);
    let owes = config.primary.is_some() && config.owing().is_some();
    let stands = if owes { "waiting for payload" } else { "down" };
    let mut lines = vec![format!(
        "volume {volume} of tenant {tenant}, {stands} in epoch {epoch}, goes on with {}",
        placed(state, store)
    )];
    let sought = state.sought().find(|view| view.volume == volume);
    lines.push(match sought {
        Some(view) => {
            let silent = all_placed(state, view.waits_for);
            format!(
                "without {silent}, which may have what nobody else has, and have not spoken since the restore"
            )
        }
        None => {
            let absent = config.ever_held.iter().filter(|store| config.member_of_store(**store).is_none());
            match owes {
                true => format!(
                    "without {}, and without the bytes of older objects that its members still lack",
                    all_placed(state, absent.copied())
                ),
                false => {
                    let gone = all_placed(state, record.knowing_stores());
                    format!("without {gone}, which have everything and are not there")
                }
            }
        }
    });
    lines.push(match &record.at_risk {
        Some(account) if !account.is_exact() => {
            format!("what is lost is unknown since {}: what was noted then is lost itself", account.opened())
        }
        Some(account) => {
            let view = account.view(volume);
            format!(
                "at most {} objects and {} bytes are lost, all put since {} behind record {}; {} versions \
                 that were hidden meanwhile stay hidden",
                view.objects, view.bytes, view.opened, view.since, view.hidden
            )
        }
        None => "what is lost is unknown: no account was kept of what only they have".to_owned(),
    });
    lines.push(
        "a store that returns keeps what it has, and is no copy, until two operators discard it".to_owned(),
    );
    lines
}

fn all_placed(state: &State, stores: impl IntoIterator<Item = StoreId>) -> String {
    stores.into_iter().map(|store| placed(state, store)).collect::<Vec<_>>().join(", ")
}

fn placed(state: &State, store: StoreId) -> String {
    match state.topology.store(store) {
        Some(known) => format!("store {store} ({} in {})", known.node, known.dc),
        None => format!("store {store}"),
    }
}
