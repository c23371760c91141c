"""Where models and tenants may be declared, one sibling per place."""
