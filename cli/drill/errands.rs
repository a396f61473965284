//! The operator of a drill on a cluster: asks the control plane for plans and applies them, as the file says. Each
//! question has a task of its own, so that a control plane that is silent holds nothing else up.

use std::sync::Arc;

use tokio::task::JoinHandle;
use trefoil_drill::{Errand, Operator};
use trefoil_protocol::message::admin::AdminAnswer;

use crate::admin::connection::Admin;
use crate::failure::{Kind, Verdict};

/// The operator, and the question that is under way.
pub(crate) struct Errands {
    operator: Operator,
    admin: Arc<Admin>,
    asking: Option<JoinHandle<Verdict<AdminAnswer>>>,
}

impl Errands {
    /// Times count from the moment the clients begin.
    pub(crate) fn new(errands: &[Errand], admin: Admin) -> Self {
        Self { operator: Operator::new(errands, 0), admin: Arc::new(admin), asking: None }
    }

    /// Goes on, and says what was begun.
    pub(crate) async fn go_on(&mut self, now: u64) -> Option<String> {
        let answer = match self.asking.take_if(|asking| asking.is_finished()) {
            Some(done) => heard(done.await.ok()?),
            None if self.asking.is_some() => return None,
            None => None,
        };
        if let Some(request) = self.operator.turn(now, answer.into_iter().collect()) {
            let admin = Arc::clone(&self.admin);
            self.asking = Some(tokio::spawn(async move { admin.ask(request).await }));
        }
        self.operator.begun()
    }

    /// Whether everything was carried out.
    pub(crate) fn is_done(&self) -> bool {
        self.operator.is_done()
    }

    /// Handovers, and the longest pause of one in milliseconds.
    pub(crate) fn measured(&self) -> (u64, u64) {
        self.operator.measured()
    }
}

/// A refusal is an answer; no answer is asked for again.
fn heard(answer: Verdict<AdminAnswer>) -> Option<AdminAnswer> {
    match answer {
        Ok(answer) => Some(answer),
        Err(failure) if failure.kind == Kind::Refused => Some(AdminAnswer::Refused(failure.message)),
        Err(_) => None,
    }
}
