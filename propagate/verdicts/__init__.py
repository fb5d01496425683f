"""A record, judged: findings and the thresholds that they rest on."""
