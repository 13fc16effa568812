"""Methods: each turns a model and anchors into an Edit. A method never generates text and never sees a judge."""
