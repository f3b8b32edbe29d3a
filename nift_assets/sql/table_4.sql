{{ config(group='scores') }}

-- Table 4 of the paper: the Open LLM Leaderboard task by task, of the first rows of Table 1.

select
    id, name, backbone, module, training_set, benchmark,
    score, low, high, paper, quoted_from, difference, outside, expected, missing, complete, gain, p,
    p_corrected, judge, note
from {{ ref('score_cells') }}
where "table" = 'table_4'
order by place
