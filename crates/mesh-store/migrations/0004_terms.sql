-- The terms of the full-text index, in their order; stores nothing of its own.
CREATE VIRTUAL TABLE log_term USING fts5vocab('log_fts', 'instance');
