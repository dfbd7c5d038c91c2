-- What kind of reason a version failed for (`link/reason.rs`), and the W3C traceparent of its request.
ALTER TABLE link_row ADD COLUMN reason TEXT COLLATE "C" NOT NULL DEFAULT 'other';
ALTER TABLE link_row ADD COLUMN traceparent BYTEA;
UPDATE link_row SET reason = 'clock_ahead' WHERE last_error = 'clock_ahead'::bytea;
