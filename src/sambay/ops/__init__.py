"""Operations of the model: one signature each, with shapes; `reference` is their specification."""
