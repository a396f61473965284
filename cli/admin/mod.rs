//! The operator's verbs: each is one question to the control plane, or work on a stopped node's
//! data folder. They decide nothing; placement does.

pub(crate) mod backup;
mod condition;
pub(crate) mod connection;
pub(crate) mod joint;
mod link;
mod load;
pub(crate) mod loss;
pub(crate) mod loss_list;
pub(crate) mod node;
pub(crate) mod operator;
pub(crate) mod plan;
pub(crate) mod principal;
pub(crate) mod refused;
mod slow;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod tenant;
mod unanswered;
pub(crate) mod voter;
pub(crate) mod wait;
