//! How far the registry has come.

use etcd_client::{GetOptions, SortOrder, SortTarget};

use crate::client::{CallError, Registry, prefix_end};
use crate::keys::ROOT;

impl Registry {
    /// The revision of the last record that was written and is still there.
    ///
    /// A [`Mirror`](crate::Mirror) whose catalog has reached it knows all that was written before the call.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer in time.
    pub async fn latest_revision(&self) -> Result<i64, CallError> {
        let options = GetOptions::new()
            .with_range(prefix_end(ROOT))
            .with_sort(SortTarget::Mod, SortOrder::Descend)
            .with_keys_only()
            .with_limit(1);
        let mut kv = self.client().kv_client();
        let newest = self
            .call("ask for the latest revision", kv.get(ROOT, Some(options)))
            .await?;
        Ok(newest
            .kvs()
            .first()
            .map_or(0, etcd_client::KeyValue::mod_revision))
    }
}
