-- The fingerprint of a job is written only where its row does not say it, and when it is eligible only where that is not when
-- it was created.
ALTER TABLE hodei.job ALTER COLUMN fingerprint DROP NOT NULL, ALTER COLUMN eligible_at DROP NOT NULL;

-- A lease that names no tenant is of the first one.
ALTER TABLE hodei.leased ALTER COLUMN tenant DROP NOT NULL;
DROP POLICY wall ON hodei.leased;
CREATE POLICY wall ON hodei.leased USING ((SELECT hodei.scope(current_user)) IS NULL
    OR coalesce(tenant, 1) = (SELECT hodei.scope(current_user)));
