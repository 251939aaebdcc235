//! Faults around what compares a store.

/// The wrapper of a store compares too: its calls begin with the store's name.
macro_rules! faulty_examiner {
    ($wrapper:ty, $store:literal) => {
        #[async_trait::async_trait]
        impl godwit_model::Examiner for $wrapper {
            fn scheme(&self) -> &'static str {
                self.inner.examiner().scheme()
            }

            async fn digest(&self, plan: &godwit_model::DigestPlan) -> godwit_model::Result<Vec<godwit_model::BlockDigest>> {
                self.plan.around(concat!($store, ".digest"), self.inner.examiner().digest(plan)).await
            }

            async fn hashes(&self, plan: &godwit_model::DigestPlan, blocks: &[u32]) -> godwit_model::Result<godwit_model::KeyedHashes> {
                self.plan.around(concat!($store, ".hashes"), self.inner.examiner().hashes(plan, blocks)).await
            }

            async fn hashes_of(
                &self,
                plan: &godwit_model::DigestPlan,
                keys: &godwit_model::RowBatch,
            ) -> godwit_model::Result<Vec<Option<u64>>> {
                self.plan.around(concat!($store, ".hashes_of"), self.inner.examiner().hashes_of(plan, keys)).await
            }
        }
    };
}
