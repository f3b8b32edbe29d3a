{{ config(group='scores') }}

-- Table 3 of the paper: MT-Bench of one backbone trained on instruction data and on completions.

select
    training_set, teacher, pairs, backbone, name,
    score, low, high, paper, quoted_from, difference, outside, expected, missing, complete, gain, p,
    p_corrected, judge, note
from {{ ref('score_cells') }}
where "table" = 'table_3'
order by place
