"""A model of our own on three accelerators of our own, with few spot zones: reviews of it are quick to replay."""

from pathlib import Path

PROFILES = """\
model,accelerator,accelerator_count,prefill_fixed_ms,prefill_ms_per_token,prefill_ms_per_token2,step_fixed_ms,step_ms_per_sequence,step_ms_per_context_token,kv_tokens,max_sequences,chunk_tokens,source
house-8b,BIG,1,3.2,0.0203,6.0e-07,5.4,0.013,3.3e-05,900000,256,2048,like an H200
house-8b,MID,1,7.7,0.0547,1.5e-06,11.6,0.033,8.0e-05,437936,256,2048,like an A100
house-8b,SMALL,1,16.0,0.11,3.0e-06,22.0,0.05,1.6e-04,200000,256,2048,like an L40S
house-8b,TINY,1,900.0,9.0,3.0e-06,400.0,0.05,1.6e-04,200000,256,2048,too slow for anything
house-8b-fp8,BIG,1,3.0,0.0120,6.0e-07,3.6,0.013,2.2e-05,1200000,256,2048,like an H200 with fp8 weights
"""
PRICES = """\
as_of,cloud,region,zone,instance,accelerator,accelerator_count,on_demand_usd_per_hour,spot_usd_per_hour,source
2026,house,north,n1,big,BIG,1,8.00,3.00,ours
2026,house,north,n1,mid,MID,1,3.00,1.20,ours
2026,house,south,s1,mid,MID,1,3.00,1.30,ours
2026,house,north,n1,small,SMALL,1,1.50,0.60,ours
2026,house,south,s1,small,SMALL,1,1.50,0.65,ours
2026,house,north,n1,tiny,TINY,1,0.10,0.05,ours
"""
# Plainly wrong: many of the dearest all day, for traffic that one carries.
WRONG = """\
# Our fleet.
models:
  - name: chat          # what the app asks for
    source: hf://us/house-8b
    replicas: {min: 20, max: 20}   # to be safe
    accelerators: [BIG]
"""


def write_catalogue(folder: Path) -> tuple[Path, Path]:
    """The files for --profiles and --prices."""
    profiles, prices = folder / "profiles.csv", folder / "prices.csv"
    profiles.write_text(PROFILES)
    prices.write_text(PRICES)
    return profiles, prices
